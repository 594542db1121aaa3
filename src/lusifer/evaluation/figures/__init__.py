"""Scores and vectors as pictures."""
