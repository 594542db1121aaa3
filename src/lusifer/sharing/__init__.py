"""Between our model folders and the world: checkpoints of others in, models of ours out to the hub."""
