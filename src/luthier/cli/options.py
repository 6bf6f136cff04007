"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[
    Path, typer.Argument(help="Recipe in YAML: a model and a data file at least.")
]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Change a setting, such as training.epochs=2."
    ),
]
Wanted = Annotated[str, typer.Argument(metavar="RUN", help="Id, name or folder of a run.")]
WorkspaceFolder = Annotated[
    Path, typer.Option("--workspace", help="Folder of runs (runtime.workspace of the recipe).")
]
DEFAULT_WORKSPACE = Path("luthier-workspace")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
