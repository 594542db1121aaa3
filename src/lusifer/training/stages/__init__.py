"""The two stages: their batches, their losses, and the scores while they train."""
