"""luthier search: many trainings, judged by validation loss, then one whole run."""

import textwrap
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from luthier.cli.options import Overrides, RecipeFile
from luthier.cli.screen import console, screen
from luthier.cli.train import INTERRUPTED, interruptible
from luthier.recipe import read_recipe

SHOWN = 10


def search(
    recipe: RecipeFile,
    tried: Annotated[
        list[str],
        typer.Option(
            "--try",
            metavar="FIELD=VALUES",
            help="A range or choices, such as training.learning_rate=1e-5..1e-3 or "
            "tuning.rank=4,8,16; else the learning rate, and an adapter's rank.",
        ),
    ] = [],  # noqa: B006 - typer's form
    attempts: Annotated[
        int, typer.Option("--attempts", help="Trainings in all, those made before counted.")
    ] = 20,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Search for settings by validation loss, then tune with the best and judge once.

    The same command goes on where it stopped, and in another process it helps.
    """
    from luthier.pipeline import search_settings
    from luthier.recipe import read_space

    space = read_space(tried)
    with screen() as shown, interruptible() as is_interrupted:
        found = search_settings(
            lambda more: read_recipe(recipe, [*overrides, *more]), space, attempts, shown.show,
            is_interrupted,
        )  # fmt: skip
    out = console()
    done = sorted((a for a in found.attempts if a.state == "finished"), key=lambda a: a.loss or 0.0)
    if done:
        fields = list(done[0].settings)
        table = Table("attempt", *map(escape, fields), "validation loss", box=None)
        for each in done[:SHOWN]:
            values = (escape(each.settings[field]) for field in fields)
            table.add_row(str(each.number), *values, f"{each.loss:.4f}")
        out.print()
        out.print(table)
    num_broken_off = sum(attempt.state == "broken off" for attempt in found.attempts)
    out.print(f"{len(found.attempts)} attempts, {num_broken_off} of them broken off early")
    out.print(f"search: {found.report}", markup=False)
    if found.tuned is None or not found.tuned.is_finished:
        out.print("\nInterrupted, or others are still trying. The same command goes on.")
        raise typer.Exit(INTERRUPTED)
    if found.tuned.verdict is not None:
        out.print("\n" + textwrap.fill(found.tuned.verdict.paragraph, 92), markup=False)
    out.print(f"\nReport     {found.tuned.report}", markup=False)
