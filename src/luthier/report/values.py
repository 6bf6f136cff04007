"""What a report is made of: the evaluation, and everything a reader needs to believe it.

The pipeline fills one `ReportInput` from a run; this room turns it into a page and a JSON. All
values are frozen, hold plain data only and survive the way through report.json unchanged. Parts
that a run does not have are empty or None, never invented. Nothing here knows runs, models or the
clock: identities, times and the date come in as values.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from luthier.data import Split
from luthier.evaluation.details import ClassDetails
from luthier.evaluation.separation import ClassMap
from luthier.evaluation.slices import Slices
from luthier.evaluation.suspects import Suspect
from luthier.evaluation.values import EvaluationResult

Scalar: TypeAlias = str | int | float | bool | None
Facts: TypeAlias = dict[str, Scalar | dict[str, Scalar]]
"""Named facts in the run's own words; a nested dict is a list such as file -> SHA-256."""


@dataclass(frozen=True, slots=True)
class StepPoint:
    """One optimizer step. `supervised_tokens` counts this step only, on all devices together."""

    step: int
    loss: float
    learning_rate: float
    tokens_per_second: float | None = None
    supervised_tokens: int | None = None
    grad_norm: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ValidationPoint:
    """The loss on the validation rows after a step; step 0 is before training."""

    step: int
    loss: float
    watched: dict[str, float] = field(default_factory=dict)
    """What a method watches besides, by name, as means over the rows."""


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """One row that was not used: which, where it stands, why, and its tokens if it has any."""

    example_id: str
    place: str
    reason: str
    num_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SplitLedger:
    """What became of the rows of one split; token counts are those of the kept rows."""

    split: Split
    num_rows: int
    num_kept: int
    dropped: tuple[DroppedRow, ...] = ()
    num_tokens: int = 0
    num_supervised: int = 0
    longest: int = 0


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """The ledgers of all splits, in the order they are shown."""

    splits: tuple[SplitLedger, ...] = ()


@dataclass(frozen=True, slots=True)
class RecipeLine:
    """One value of the effective recipe: its path, the value, and why it is what it is."""

    path: str
    value: Scalar | tuple[Scalar, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class StageTime:
    """Wall-clock seconds of one stage of the run."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NextStep:
    """Something to do with the result, and the command that does it."""

    what: str
    command: str


@dataclass(frozen=True, slots=True)
class TextDetails:
    """What a report shows of models that read texts, besides their scores."""

    slices: tuple[Slices, ...] = ()
    """Of the tuned model and of the strongest baseline."""
    classes: tuple[ClassDetails, ...] = ()
    """Label by label, of the tuned model and of the strongest baseline."""
    class_map: ClassMap | None = None
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run beside others: its name among them, and how it learnt."""

    name: str
    run_id: str
    curve: tuple[StepPoint, ...] = ()
    validation: tuple[ValidationPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Differing:
    """Something that runs differ in, such as a setting, and what each has."""

    what: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportInput:
    """Everything a report says. `evaluation` is None for a run that was trained only."""

    title: str
    created_at: datetime
    run_id: str
    evaluation: EvaluationResult | None = None
    curve: tuple[StepPoint, ...] = ()
    validation: tuple[ValidationPoint, ...] = ()
    ledger: LedgerSummary = LedgerSummary()
    recipe: tuple[RecipeLine, ...] = ()
    environment: Facts = field(default_factory=dict)
    timings: tuple[StageTime, ...] = ()
    peak_memory_bytes: int | None = None
    model: Facts = field(default_factory=dict)
    """Such as source, revision, sha256, licence, parameters, trainable_parameters."""
    data: Facts = field(default_factory=dict)
    """Such as files (path -> SHA-256), fingerprint, rows."""
    next_steps: tuple[NextStep, ...] = ()
    warnings: tuple[str, ...] = ()
    details: TextDetails | None = None
    runs: tuple[RunLine, ...] = ()
    """Runs that are compared with each other; `evaluation` has a system of each."""
    differing: tuple[Differing, ...] = ()
