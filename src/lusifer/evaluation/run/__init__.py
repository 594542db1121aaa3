"""Evaluate a model and write an evaluation folder."""
