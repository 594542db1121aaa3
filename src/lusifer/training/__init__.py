"""Training: recipes, both stages, the run folder."""
