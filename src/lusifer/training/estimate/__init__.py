"""Estimate the memory, the operations and the hours of a recipe, before anything is downloaded."""
