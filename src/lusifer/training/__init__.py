"""Training: recipes, the two stages, and the run folder."""
