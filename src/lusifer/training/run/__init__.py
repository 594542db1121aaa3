"""Run a recipe: from its bases to the finished model in a run folder."""
