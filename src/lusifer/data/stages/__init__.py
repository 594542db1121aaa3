"""Rows as the examples and batches of a stage."""
