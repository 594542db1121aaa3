"""Scores: a model folder in, a results folder out."""
