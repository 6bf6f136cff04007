"""luthier evaluate, probe: a finished run on other rows, or on rows that name groups otherwise."""

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, Wanted, WorkspaceFolder
from luthier.cli.screen import console, screen

SHIFTS = 10
"""Kinds of changes that are shown."""
Rows = Annotated[Path, typer.Option("--data", help="File of rows to judge on.")]


def evaluate(run: Wanted, data: Rows, workspace: WorkspaceFolder = DEFAULT_WORKSPACE) -> None:
    """Compare a tuned model with its prompt alone, on rows it has not seen."""
    from luthier.pipeline import evaluate_run, find_run

    with screen() as shown:
        result = evaluate_run(find_run(workspace, run), data, shown.show)
    if result.verdict is not None:
        console().print("\n" + textwrap.fill(result.verdict.paragraph, 92))


def probe(
    run: Wanted,
    data: Annotated[Path, typer.Option("--data", help="File of rows to ask.")],
    swaps: Annotated[
        list[str], typer.Option("--swap", metavar="TERM=TERM", help="Terms, each for the other.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="JSONL of the rows whose answer changed.")
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Ask a tuned model rows twice, a group named otherwise: which answers change?"""
    from luthier.evaluation import read_swaps
    from luthier.pipeline import find_run, probe_run
    from luthier.runs import write_atomically

    chosen = read_swaps(swaps)
    with screen() as shown:
        found = probe_run(find_run(workspace, run), data, chosen, shown.show)
    out = console()
    out.print(
        f"{found.num_changed:,} of {found.num_rows:,} answers changed: {100 * found.share:.1f} % "
        f"(95 % interval {100 * found.low:.1f} to {100 * found.high:.1f})"
    )
    for (before, after), number in list(found.shifts.items())[:SHIFTS]:
        out.print(f"  {number:,} from {_short(before)} to {_short(after)}")
    if output is not None:
        lines = (json.dumps(asdict(changed), ensure_ascii=False) for changed in found.changed)
        write_atomically(output, "".join(f"{line}\n" for line in lines))
        out.print(f"written: {output}")


def _short(text: str) -> str:
    from luthier.report import shortened, visible

    return repr(shortened(visible(text), 60))
