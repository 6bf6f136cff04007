"""What the pipeline tells its observer while it works.

Doors show these; nothing depends on being observed. Training and evaluation send events of their
own, which pass through unchanged.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luthier.evaluation import SystemFinished, SystemStarted
from luthier.training import Damaged, Profile, RowsLearnt, Saved, Squeezed, StepDone, Validated

if TYPE_CHECKING:  # it says things itself
    from luthier.pipeline.preparing import Prepared


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage of the path begins."""

    name: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line: what takes long, what is taken up again, what was dropped."""

    text: str


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything is decided; the run's folder exists."""

    run_id: str
    prepared: "Prepared"
    is_resumed: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """A predictor has answered so many of its rows."""

    name: str
    done: int
    total: int


Event = (
    StageStarted | Note | Ready | Answered | SystemStarted | SystemFinished
    | StepDone | RowsLearnt | Validated | Saved | Squeezed | Damaged | Profile
)  # fmt: skip
