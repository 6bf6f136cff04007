"""Ids become steps and checkpoints: one loop, many objectives."""

from luthier.training.gradients import Squeezed
from luthier.training.loop import (
    Damaged,
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
from luthier.training.profiling import Profile, Profiler
from luthier.training.ranks import Ranks, join_ranks, leave_ranks
from luthier.training.references import reference_key, reference_logprobs, with_references

__all__ = [
    "NEEDS_REFERENCE",
    "Damaged",
    "Measured",
    "Objective",
    "Outcome",
    "Profile",
    "Profiler",
    "Ranks",
    "Saved",
    "Squeezed",
    "StepDone",
    "SupervisedObjective",
    "Surroundings",
    "TrainingEvent",
    "Validated",
    "build_objective",
    "join_ranks",
    "leave_ranks",
    "measure",
    "reference_key",
    "reference_logprobs",
    "train",
    "with_references",
]
