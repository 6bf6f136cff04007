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
from luthier.training.objectives import Measured, Objective, SupervisedObjective, measure
from luthier.training.preferences import NEEDS_REFERENCE, build_objective
from luthier.training.references import reference_key, reference_logprobs, with_references

__all__ = [
    "NEEDS_REFERENCE",
    "Measured",
    "Objective",
    "Outcome",
    "Saved",
    "StepDone",
    "SupervisedObjective",
    "Surroundings",
    "TrainingEvent",
    "Validated",
    "build_objective",
    "measure",
    "reference_key",
    "reference_logprobs",
    "train",
    "with_references",
]
