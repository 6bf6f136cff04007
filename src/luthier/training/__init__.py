"""Ids become steps and checkpoints: one loop, many objectives."""

from luthier.training.classes import ClassObjective, multi_hot
from luthier.training.contrast import LabelContrast, PairContrast, ScoreContrast
from luthier.training.gradients import Squeezed
from luthier.training.heads import fit_head, start_from_probe
from luthier.training.loop import (
    Damaged,
    Outcome,
    RowsLearnt,
    Saved,
    StepDone,
    Surroundings,
    TrainingEvent,
    Validated,
    train,
)
from luthier.training.mining import with_hard_negatives
from luthier.training.objectives import (
    Measured,
    Objective,
    SupervisedObjective,
    measure,
    measure_parted,
)
from luthier.training.preferences import NEEDS_REFERENCE, build_objective
from luthier.training.profiling import Profile, Profiler
from luthier.training.ranks import Ranks, join_ranks, leave_ranks
from luthier.training.references import reference_key, reference_logprobs, with_references

__all__ = [
    "NEEDS_REFERENCE",
    "ClassObjective",
    "Damaged",
    "LabelContrast",
    "Measured",
    "Objective",
    "Outcome",
    "PairContrast",
    "Profile",
    "Profiler",
    "Ranks",
    "Saved",
    "ScoreContrast",
    "Squeezed",
    "RowsLearnt",
    "StepDone",
    "SupervisedObjective",
    "Surroundings",
    "TrainingEvent",
    "Validated",
    "build_objective",
    "fit_head",
    "join_ranks",
    "leave_ranks",
    "measure",
    "measure_parted",
    "multi_hot",
    "reference_key",
    "reference_logprobs",
    "start_from_probe",
    "train",
    "with_hard_negatives",
    "with_references",
]
