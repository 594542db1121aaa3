"""The two stages: what a step reads, its loss, and what is measured on the way."""
