"""What a job's process tells its worker, in lines of JSON, whatever process of a run tells it."""

import json
import math
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from luthier.jobs.naming import KEPT
from luthier.runs import JsonLines

if TYPE_CHECKING:
    from luthier.pipeline import Event, Prepared

ASKED, STEP = "asked", "step-"
"""Folder in a run's own, and names in it, of checkpoints that can be asked."""


class Lines(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object:
        """Take a line."""
        ...

    def flush(self) -> object:
        """See that it arrives."""
        ...


class Teller:
    """Passes a run's events on as lines of JSON."""

    def __init__(self, out: Lines) -> None:
        self._out, self._lock = out, threading.Lock()
        self._folder = Path()
        self._last: dict[str, Any] = {}

    def say(self, kind: str, **content: Any) -> None:
        """One line; numbers that are no numbers become null."""
        self.pass_on(json.dumps({"kind": kind, **_finite(content)}) + "\n")

    def pass_on(self, line: str) -> None:
        """One line as it stands."""
        with self._lock:
            self._out.write(line)
            self._out.flush()

    def show(self, event: "Event") -> None:
        """Tell of one event."""
        from luthier import pipeline
        from luthier.evaluation import SystemFinished
        from luthier.training import Saved, StepDone, Validated

        match event:
            case pipeline.StageStarted():
                self.say("stage", name=event.name)
            case pipeline.Note():
                self.say("note", text=event.text)
            case pipeline.Ready():
                self._ready(event)
            case SystemFinished():
                values = {metric: found.value for metric, found in event.estimates.items()}
                self.say("system", name=event.name, metrics=values)
            case StepDone():
                self._step(asdict(event))
            case Validated():
                self._validated(asdict(event))
            case Saved():
                self._keep(event.step)

    def _step(self, event: dict[str, Any]) -> None:
        self._last = {"train_loss": event["loss"], **_prefixed("train", event["watched"])}
        self.say("step", **event)

    def _validated(self, event: dict[str, Any]) -> None:
        self._last |= {"valid_loss": event["loss"], **_prefixed("valid", event["watched"])}
        self.say("validated", **event)

    def _ready(self, event: Any) -> None:
        self._folder = event.prepared.recipe.runtime.workspace / "runs" / event.run_id
        self.say("ready", run_id=event.run_id, resumed=event.is_resumed, **_plan(event.prepared))
        if event.is_resumed:
            self._repeat()

    def _repeat(self) -> None:
        """Tell again what was done before: when the last worker died, nobody may have heard it."""
        kept = {int(place.name.removeprefix(STEP)) for place in self._folder.glob(f"{ASKED}/*")}
        known: dict[str, dict[int, dict[str, Any]]] = {"step": {}, "validation": {}}
        for line in JsonLines(self._folder / "events.jsonl").read():
            kind = line.pop("event")
            if kind in known:
                known[kind][line["step"]] = line
        for step, line in sorted(known["step"].items()):
            self._step(line)
            if step in known["validation"]:
                self._validated(known["validation"][step])
            if step in kept:
                self._saved(step)

    def _saved(self, step: int) -> None:
        self.say("saved", step=step, metrics={"step": step, **self._last})

    def _keep(self, step: int) -> None:
        """A checkpoint's weights, for those who want to ask it; training removes its own."""
        made = self._folder / "checkpoints" / f"{STEP}{step:08d}" / "trained.safetensors"
        if not made.is_file():
            return  # of several processes, in parts
        place = self._folder / ASKED / f"{STEP}{step:08d}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, place / "trained.safetensors.unfinished")
        (place / "trained.safetensors.unfinished").rename(place / "trained.safetensors")
        for old in sorted(place.parent.iterdir())[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self._saved(step)


def _plan(prepared: "Prepared") -> dict[str, Any]:
    """What was decided, in the protocol's words."""
    training = prepared.recipe.training
    return {
        "n_epochs": training.epochs,
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "train_tokens": prepared.facts.train_tokens,
        "num_train": prepared.facts.num_train,
        "num_validation": prepared.facts.num_validation,
        "num_test": len(prepared.test),
        "warnings": [str(finding) for finding in prepared.findings[:50]],
    }


def _prefixed(split: str, watched: dict[str, float]) -> dict[str, float]:
    return {f"{split}_{name}": value for name, value in watched.items()}


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return str(content) if isinstance(content, Path) else content


class _Said:
    """Lines that go to whoever ordered a run."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def write(self, text: str) -> None:
        self._say(text)

    def flush(self) -> None: ...


def observer(say: Callable[[str], None]) -> "Callable[[Event], None]":
    """Tells of a run's events elsewhere than where its job's process is."""
    return Teller(_Said(say)).show
