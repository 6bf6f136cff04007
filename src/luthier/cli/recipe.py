"""luthier recipe: what a run would be told."""

import json

import typer

from luthier.cli.options import AsJson, Overrides, RecipeFile
from luthier.cli.screen import console
from luthier.recipe import flatten, read_recipe

app = typer.Typer(help="Show what a recipe says.", no_args_is_help=True)


@app.callback()
def recipe() -> None:
    """Show what a recipe says."""


@app.command("show")
def show(
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006 - typer's form
    as_json: AsJson = False,
) -> None:
    """The effective recipe: every value, and why it is what it is."""
    from luthier.pipeline import prepare

    read = read_recipe(recipe, overrides)
    out = console()
    prepared = prepare(read)
    origins = prepared.resolved.origins
    values = flatten(prepared.recipe)
    if as_json:
        lines = {k: {"value": v, "origin": origins.get(k, "default")} for k, v in values.items()}
        out.print(json.dumps(lines, indent=1))
        return
    width = max(len(str(value)) for value in values.values() if len(str(value)) < 40)
    for path, value in values.items():
        out.print(f"{path:30} {value!s:{width}}  {origins.get(path, 'default')}")
