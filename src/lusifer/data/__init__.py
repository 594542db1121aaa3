"""Rows: what training data is, where it comes from, and how the stages read it."""
