"""Tensors in, tensors out: the composite model, its parts and how it is built."""
