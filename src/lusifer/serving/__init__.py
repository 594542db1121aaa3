"""Embed files of texts with a trained model."""
