"""The two stages: what a step reads, its loss, and what is watched."""
