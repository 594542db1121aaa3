"""Scores that others published for public models, and where a model stands among them."""
