"""Retrieval tasks without mteb: all documents are searched for each question, and all ranks are stored."""
