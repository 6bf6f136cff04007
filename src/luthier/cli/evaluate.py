"""luthier evaluate: a finished run on other rows."""

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, Wanted, WorkspaceFolder
from luthier.cli.screen import console, screen

Rows = Annotated[Path, typer.Option("--data", help="File of rows to judge on.")]


def evaluate(run: Wanted, data: Rows, workspace: WorkspaceFolder = DEFAULT_WORKSPACE) -> None:
    """Compare a tuned model with its prompt alone, on rows it has not seen."""
    from luthier.pipeline import evaluate_run, find_run

    with screen() as shown:
        result = evaluate_run(find_run(workspace, run), data, shown.show)
    if result.verdict is not None:
        console().print("\n" + textwrap.fill(result.verdict.paragraph, 92))
