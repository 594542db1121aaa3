"""The objectives of an alignment stage, by name, and the examples that they read."""

from lusifer.extras import qualified
from lusifer.training.objectives.distill import Distill
from lusifer.training.objectives.language_model import Completion, Reconstruction
from lusifer.training.objectives.objective import Objective

OBJECTIVES: dict[str, Objective] = {each.name: each for each in (Reconstruction(), Completion(), Distill())}
"""The objectives that a recipe may name. Their order decides which steps get which objective: append only."""
BUILT_IN = tuple(OBJECTIVES)
"""Names of the objectives of the package."""


def register(objective: Objective) -> None:
    """Register an objective under its name, so that recipes can use it.

    Raises:
        ValueError: Another class has the name.
    """
    known = OBJECTIVES.setdefault(objective.name, objective)
    if known is not objective and qualified(type(known)) != qualified(type(objective)):
        taken = qualified(type(known))
        raise ValueError(f"objective {objective.name!r}: {taken} has this name already: choose another")
    OBJECTIVES[objective.name] = objective
