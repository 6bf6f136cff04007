"""The process of one job: goes the pipeline's path and tells its worker how far it is.

`python -m luthier.jobs.process` reads one line, the order, on standard input, and writes lines of
JSON: what happened. Whatever prints or crashes in here touches nothing else. It saves and ends when
asked (SIGTERM); when its worker is gone, which it sees by its input ending, it has a few seconds.
"""

import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from luthier.errors import LuthierError
from luthier.jobs.naming import KEPT
from luthier.runs import JsonLines

if TYPE_CHECKING:
    from luthier.pipeline import Event, Prepared, Tuned

GRACE = 10.0
"""Seconds to save in, once the worker is gone: less than another one waits to take over."""

ASKED, STEP = "asked", "step-"
"""Folder in a run's own, and names in it, of checkpoints that can be asked."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a job's process is to do."""

    recipe: dict[str, Any]
    multiplier: float | None = None
    """Times the learning rate that the recipe would choose."""


@dataclass
class _Asked:
    """Whether somebody wants the process to end."""

    to_end: bool = False
    lines: list[str] = field(default_factory=list)


class Teller:
    """Passes a run's events on as lines of JSON."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._lock = out, threading.Lock()
        self._folder = Path()
        self._last: dict[str, Any] = {}

    def say(self, kind: str, **content: Any) -> None:
        """One line; numbers that are no numbers become null."""
        line = json.dumps({"kind": kind, **_finite(content)})
        with self._lock:
            self._out.write(line + "\n")
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


def main() -> None:
    """Do the order on standard input."""
    # What libraries print goes to the log, so that only we write lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = Order(**json.loads(sys.stdin.readline()))
    asked = _Asked()
    signal.signal(signal.SIGTERM, lambda number, frame: setattr(asked, "to_end", True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the worker
    threading.Thread(target=_end_with_worker, args=(asked,), daemon=True).start()
    teller = Teller(out)
    try:
        tuned = _tune(order, teller, asked)
    except LuthierError as error:
        teller.say("failed", error=type(error).__name__, found=str(error), advice=error.advice)
        raise SystemExit(1) from None
    if tuned.is_finished:
        _conclude(tuned, teller)
    else:
        teller.say("interrupted")


def _end_with_worker(asked: _Asked) -> None:
    sys.stdin.read()
    asked.to_end = True
    time.sleep(GRACE)
    os._exit(1)


def _tune(order: Order, teller: Teller, asked: _Asked) -> "Tuned":
    from luthier import pipeline
    from luthier.recipe import recipe_from, settled

    def note(text: str) -> None:
        teller.say("note", text=text)

    prepared = pipeline.prepare(recipe_from(order.recipe), note)
    if order.multiplier is not None:
        chosen = settled(prepared.recipe.training.learning_rate) * order.multiplier
        training = {**order.recipe.get("training", {}), "learning_rate": chosen}
        prepared = pipeline.prepare(recipe_from({**order.recipe, "training": training}), note)
    return pipeline.tune(prepared, teller.show, lambda: asked.to_end)


def _conclude(tuned: "Tuned", teller: Teller) -> None:
    evaluation, verdict = tuned.evaluation, tuned.verdict
    decision = evaluation.decision if evaluation else None
    general = evaluation.general if evaluation else None
    teller.say(
        "finished",
        run_id=tuned.run.id,
        model="read" if tuned.reads_texts else "write",
        verdict=verdict.paragraph if verdict else "",
        decision=decision.words if decision else "",
        general=general.words if general else "",
    )


if __name__ == "__main__":
    main()
