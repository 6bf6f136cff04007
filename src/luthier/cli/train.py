"""luthier train: the whole path, from rows to verdict."""

import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from luthier.cli.options import Overrides, RecipeFile
from luthier.cli.screen import console, screen
from luthier.recipe import read_recipe

INTERRUPTED = 130


Profiles = Annotated[
    bool, typer.Option("--profile", help="Measure some steps, and say where the time went.")
]


def train(
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006 - typer's form
    profile: Profiles = False,
) -> None:
    """Tune a model and say whether it helped. The same command again resumes.

    Checks the data, measures the model with prompts alone, trains, measures again, compares, and
    writes a report. Ctrl-C saves a checkpoint first.
    """
    from luthier import pipeline

    read = read_recipe(recipe, overrides)
    is_first = int(os.environ.get("RANK", "0")) == 0  # of those that torchrun started
    with screen(is_quiet=not is_first) as shown, _interruptible() as is_interrupted:
        # What is wrong with recipe or rows is said before torch is loaded.
        prepared = pipeline.prepare(read, shown.line)
        tuned = pipeline.tune(prepared, shown.show, is_interrupted, profiles=profile)
    out = console(is_quiet=not is_first)
    if not tuned.is_finished:
        out.print("\nInterrupted; a checkpoint is saved. Run the same command again to go on.")
        raise typer.Exit(INTERRUPTED)
    if tuned.verdict is not None:
        out.print("\n" + textwrap.fill(tuned.verdict.paragraph, 92))
    out.print(f"\nReport     {tuned.report}")
    out.print(f"Talk to it luthier chat {tuned.run.record.name}")


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
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
