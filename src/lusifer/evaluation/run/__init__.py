"""A model in, an evaluation folder out."""
