"""luthier curve: what more training rows would bring."""

import textwrap
import webbrowser
from typing import Annotated

import typer

from luthier.cli.options import Overrides, RecipeFile
from luthier.cli.screen import console, screen
from luthier.cli.train import INTERRUPTED, interruptible
from luthier.recipe import read_recipe


def curve(
    recipe: RecipeFile,
    shares: Annotated[
        list[float],
        typer.Option("--share", help="Shares of the training rows; else 0.25, 0.5 and 1."),
    ] = [],  # noqa: B006 - typer's form
    overrides: Overrides = [],  # noqa: B006
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Tune on a quarter, half and all of the training rows, and say what more would bring.

    Runs that are finished are not made again; the same command resumes.
    """
    from luthier.pipeline import draw_learning_curve

    read = read_recipe(recipe, overrides)
    given = {"shares": tuple(shares)} if shares else {}
    with screen() as shown, interruptible() as is_interrupted:
        found = draw_learning_curve(
            read, observe=shown.show, is_interrupted=is_interrupted, **given
        )
    out = console()
    if found is None:
        out.print("\nInterrupted; a checkpoint is saved. Run the same command again to go on.")
        raise typer.Exit(INTERRUPTED)
    out.print("\n" + textwrap.fill(found.words, 92), markup=False)
    out.print(f"\nreport: {found.report}", markup=False)
    if open_page:
        webbrowser.open(found.report.resolve().as_uri())
