"""The process of one job: goes the pipeline's path and tells its worker how far it is.

`python -m luthier.jobs.process` reads one line, the order, on standard input, and writes lines of
JSON: what happened. Whatever prints or crashes in here touches nothing else. It saves and ends when
asked (SIGTERM); when its worker is gone, which it sees by its input ending, it has a few seconds.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from luthier.errors import LuthierError
from luthier.jobs.telling import Teller, observer

if TYPE_CHECKING:
    from luthier.pipeline import Tuned
    from luthier.recipe import ReadRecipe

GRACE = 10.0
"""Seconds to save in, once the worker is gone: less than another one waits to take over."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a job's process is to do."""

    recipe: dict[str, Any]
    multiplier: float | None = None
    """Times the learning rate that the recipe would choose."""
    ray: str = ""
    """Address of the cluster that is to do it; empty: this process."""
    ray_workers: int = 1


@dataclass
class _Asked:
    """Whether somebody wants the process to end."""

    to_end: bool = False
    lines: list[str] = field(default_factory=list)


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

    read = recipe_from(order.recipe)
    if order.ray and order.multiplier is None:
        return _on_ray(read, order, teller, asked)
    prepared = pipeline.prepare(read, note)
    if order.multiplier is not None:
        chosen = settled(prepared.recipe.training.learning_rate) * order.multiplier
        training = {**order.recipe.get("training", {}), "learning_rate": chosen}
        read = recipe_from({**order.recipe, "training": training})
        if order.ray:
            return _on_ray(read, order, teller, asked)
        prepared = pipeline.prepare(read, note)
    return pipeline.tune(prepared, teller.show, lambda: asked.to_end)


def _on_ray(read: "ReadRecipe", order: Order, teller: Teller, asked: _Asked) -> "Tuned":
    from luthier import pipeline

    cluster = pipeline.Cluster(order.ray, (order.ray_workers, order.ray_workers))
    return pipeline.tune_on_ray(read, cluster, observer, teller.pass_on, lambda: asked.to_end)


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
