"""Recipes: YAML files that are read and checked."""
