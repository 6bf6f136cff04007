"""luthier train: the whole path, from rows to verdict."""

import os
import re
import signal
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.options import Overrides, RecipeFile
from luthier.cli.screen import Screen, console, screen
from luthier.errors import ConfigError
from luthier.recipe import ReadRecipe, read_recipe

if TYPE_CHECKING:
    from luthier.pipeline import Event, Tuned
    from luthier.pipeline.board import Say

INTERRUPTED = 130


Profiles = Annotated[
    bool, typer.Option("--profile", help="Measure some steps, and say where the time went.")
]


RayAddress = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Train on a Ray cluster: address, auto, local."),
]
Workers = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="N|MIN-MAX",
        help="Processes on the Ray cluster that train together; a range adapts to its room.",
    ),
]
Storage = Annotated[
    str,
    typer.Option(
        "--storage", metavar="URL", help="Copy runs there, for Ray nodes that share no disk."
    ),
]


def train(
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006 - typer's form
    profile: Profiles = False,
    ray: RayAddress = None,
    workers: Workers = "1",
    storage: Storage = "",
) -> None:
    """Tune a model and say whether it helped. The same command again resumes.

    Checks the data, measures the model with prompts alone, trains, measures again, compares, and
    writes a report. Ctrl-C saves a checkpoint first.
    """
    from luthier import pipeline

    read = read_recipe(recipe, overrides)
    if ray is not None:
        _refuse(profile, "--profile", "measures one process, and --ray starts more", "leave it out")
        _show(_train_on_ray(read, ray, _range(workers), storage))
        return
    found, advice = "is only told to Ray", "add --ray local, or start the command with torchrun"
    _refuse(workers != "1", f"--workers {workers}", found, advice)
    _refuse(bool(storage), f"--storage {storage}", found, advice)
    is_first = int(os.environ.get("RANK", "0")) == 0  # of those that torchrun started
    with screen(is_quiet=not is_first) as shown, interruptible() as is_interrupted:
        # What is wrong with recipe or rows is said before torch is loaded.
        prepared = pipeline.prepare(read, shown.line)
        tuned = pipeline.tune(prepared, shown.show, is_interrupted, profiles=profile)
    _show(tuned, is_quiet=not is_first)


def _refuse(is_given: bool, option: str, found: str, advice: str) -> None:
    if is_given:
        raise ConfigError(found, where=option, advice=advice)


def _show(tuned: "Tuned", *, is_quiet: bool = False) -> None:
    out = console(is_quiet=is_quiet)
    if not tuned.is_finished:
        out.print("\nInterrupted; a checkpoint is saved. Run the same command again to go on.")
        raise typer.Exit(INTERRUPTED)
    if tuned.verdict is not None:
        out.print("\n" + textwrap.fill(tuned.verdict.paragraph, 92))
    if tuned.evaluation is not None and tuned.evaluation.decision is not None:
        out.print(tuned.evaluation.decision.words, markup=False)
    if tuned.evaluation is not None and tuned.evaluation.general is not None:
        out.print(textwrap.fill(tuned.evaluation.general.words, 92), markup=False)
    out.print(f"\nReport     {tuned.report}")
    name = tuned.run.record.name
    if tuned.reads_texts:
        out.print(f"Use it     luthier predict {name} --input texts.jsonl")
    else:
        out.print(f"Talk to it luthier chat {name}")


def _range(workers: str) -> tuple[int, int]:
    """Fewest and most of "2" or "1-4"."""
    found = re.fullmatch(r"([1-9]\d*)(?:-([1-9]\d*))?", workers)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if fewest > most:
        raise ConfigError(
            "is no number of processes",
            where=f"--workers {workers}",
            accepted="a number such as 2, or fewest and most such as 1-4",
        )
    return fewest, most


def _train_on_ray(
    read: ReadRecipe, address: str, workers: tuple[int, int], storage: str
) -> "Tuned":
    from luthier import pipeline
    from luthier.runs import num_cores

    pipeline.prepare(read, console().print)  # what is wrong is said before a worker is started
    cores = max(1, num_cores() // workers[1]) if address == "local" else 1
    return pipeline.tune_on_ray(read, pipeline.Cluster(address, workers, cores, storage), _shown)


def _shown(say: "Say") -> "Callable[[Event], None]":
    """Shows events in the first worker, whose output Ray brings here."""
    return Screen().show


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C once asks the training to save and end; twice breaks off at once."""
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        console().print("\nsaving after this step; Ctrl-C again breaks off at once")

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, previous)
