"""A run's journal: one JSON line per step, validation and stage, in the run's folder.

What each row lost at each step is in a file of its own.

It is what the report draws its curves and timings from, also after a resume: lines of steps that a
killed process had done but not saved are removed, because they are done again.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from luthier.evaluation import SystemResult
from luthier.pipeline.events import Event, Note, StageStarted
from luthier.pipeline.loggers import Logger, numbers_of, numbers_of_systems
from luthier.report import StageTime, StepPoint, ValidationPoint
from luthier.runs import JsonLines, RowLosses, Run
from luthier.training import Damaged, RowsLearnt, Squeezed, StepDone, Validated


class Journal:
    """Writes a run's events down and passes them on."""

    def __init__(
        self, run: Run, observe: Callable[[Event], None], loggers: Sequence[Logger] = ()
    ) -> None:
        self._lines = JsonLines(run.path("events.jsonl"))
        self._rows = RowLosses(run.folder)
        self._observe, self._loggers = observe, loggers

    def resume_after(self, step: int) -> None:
        """Forget the steps after `step`."""
        self._lines.keep(lambda entry: entry.get("step", 0) <= step)
        self._rows.forget_after(step)

    def observe(self, event: Event) -> None:
        """Note what the report will need, and pass the event on."""
        if isinstance(event, StepDone):
            self._lines.append({"event": "step", **asdict(event)})
        elif isinstance(event, RowsLearnt):
            self._rows.append(event.step, event.rows, event.losses)
        elif isinstance(event, Validated):
            self._lines.append({"event": "validation", **asdict(event)})
        elif isinstance(event, Squeezed):
            self.warn(
                f"memory ran out; training goes on with {event.micro_batch_tokens} tokens at once"
                + (", activations computed twice" if event.activations == "recompute" else "")
            )
        elif isinstance(event, Damaged):
            self.warn(f"a checkpoint was passed over for an earlier one: {event.reason}")
        found = numbers_of(event)
        if found is not None:
            for logger in self._loggers:
                logger.log(*found)
        self._observe(event)

    def conclude(self, systems: list[SystemResult], step: int) -> None:
        """Send the systems' metrics to the loggers."""
        for logger in self._loggers:
            logger.log(numbers_of_systems(systems), step)

    def close(self, *, is_over: bool) -> None:
        """End the loggers' runs, for good or until the run is taken up again."""
        for logger in self._loggers:
            logger.finish(is_over=is_over)

    def warn(self, text: str) -> None:
        """Say something that the report is to say as well, once."""
        if text not in self.warnings():
            self._lines.append({"event": "warning", "text": text})
        self._observe(Note(text))

    def warnings(self) -> tuple[str, ...]:
        """What the report is to warn of."""
        return tuple(e["text"] for e in self._lines.read() if e["event"] == "warning")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and note the seconds it took, also when it is broken off."""
        self._observe(StageStarted(name))
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = round(time.perf_counter() - started, 3)
            self._lines.append({"event": "stage", "name": name, "seconds": seconds})

    def curve(self) -> tuple[StepPoint, ...]:
        """The training steps, each once."""
        steps = {e["step"]: e for e in self._lines.read() if e["event"] == "step"}
        return tuple(
            StepPoint(
                step,
                e["loss"],
                e["learning_rate"],
                e["num_tokens"] / max(e["seconds"], 1e-9),
                e["num_supervised"],
                e["grad_norm"],
                e["memory_bytes"],
            )
            for step, e in sorted(steps.items())
        )

    def validation(self) -> tuple[ValidationPoint, ...]:
        """The validation losses, each once."""
        found = {e["step"]: e for e in self._lines.read() if e["event"] == "validation"}
        return tuple(
            ValidationPoint(step, e["loss"], e["watched"]) for step, e in sorted(found.items())
        )

    def timings(self) -> tuple[StageTime, ...]:
        """Seconds per stage, over all the times the run was taken up."""
        seconds: dict[str, float] = {}
        for entry in self._lines.read():
            if entry["event"] == "stage":
                seconds[entry["name"]] = seconds.get(entry["name"], 0.0) + entry["seconds"]
        return tuple(StageTime(name, total) for name, total in seconds.items())

    def peak_memory(self) -> int:
        """Largest memory any step saw, in bytes."""
        return max(
            (e["memory_bytes"] for e in self._lines.read() if e["event"] == "step"), default=0
        )
