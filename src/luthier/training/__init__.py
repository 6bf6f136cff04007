"""Ids become steps and checkpoints: one loop, many objectives."""

from luthier.training.loop import (
    Outcome,
    Saved,
    StepDone,
    Surroundings,
    TrainingEvent,
    Validated,
    train,
)
from luthier.training.objectives import Objective, SupervisedObjective

__all__ = [
    "Objective",
    "Outcome",
    "Saved",
    "StepDone",
    "SupervisedObjective",
    "Surroundings",
    "TrainingEvent",
    "Validated",
    "train",
]
