"""What a method does with a run's model at each stage; the path through the stages is one for all.

`tuning` knows the order of things. `writing` and `reading` know what they are for models that
write answers and for models that read whole texts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from luthier.evaluation import AnyScorer, Kind, Predictor, SystemResult
from luthier.pipeline.events import Answered, Event
from luthier.pipeline.general import GeneralAbility
from luthier.pipeline.learning import Circumstances
from luthier.pipeline.preparing import Prepared
from luthier.report import TextDetails
from luthier.runs import Run
from luthier.training import Outcome

TUNED = "fine-tuned"


@dataclass(frozen=True)
class Desk:
    """Where a work is done: the run's folder, and who is told of it."""

    run: Run
    observe: Callable[[Event], None]
    warn: Callable[[str], None]

    def answered(self, name: str) -> Callable[[int, int], None]:
        """To be told how many rows a predictor has answered."""
        return lambda done, total: self.observe(Answered(name, done, total))


class Work(Protocol):
    """One method's part in a run."""

    @property
    def prepared(self) -> Prepared:
        """What is known before the first computation."""
        ...

    @property
    def scorers(self) -> tuple[AnyScorer, ...]:
        """What judges the answers, the primary one first."""
        ...

    def load(self) -> Any:
        """The model at the start."""
        ...

    def baselines(self, model: Any, desk: Desk) -> Iterator[tuple[Predictor, Kind]]:
        """What the tuned model must beat, one after the other."""
        ...

    def learn(self, model: Any, circumstances: Circumstances) -> tuple[Outcome, Any]:
        """Train; the model with the best weights, whole on the first process."""
        ...

    def tuned(self, model: Any, desk: Desk) -> Predictor:
        """The tuned model as the evaluation asks it."""
        ...

    def general(self, desk: Desk) -> GeneralAbility | None:
        """What is asked besides the task, before and after; None where nothing is."""
        ...

    def save(self, model: Any, run: Run) -> None:
        """Write what learnt into the run's folder, whole or not at all."""
        ...

    def details(self, model: Any, systems: list[SystemResult], desk: Desk) -> TextDetails | None:
        """What else the report shows of the systems, the tuned one last."""
        ...
