"""Stage 1's objectives by name, and the examples that they read."""

from lusifer.training.objectives.distill import Distill
from lusifer.training.objectives.language_model import Completion, Reconstruction
from lusifer.training.objectives.objective import Objective

OBJECTIVES: dict[str, Objective] = {each.name: each for each in (Reconstruction(), Completion(), Distill())}
"""The objectives that a recipe may name. Their order decides which steps get which objective: append only."""


def register(objective: Objective) -> None:
    """Let recipes name an objective; one of the same name is replaced."""
    OBJECTIVES[objective.name] = objective
