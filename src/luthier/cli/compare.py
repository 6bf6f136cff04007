"""luthier compare, luthier leaderboard: finished runs and other systems side by side."""

import json
import textwrap
import webbrowser
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from luthier.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceFolder
from luthier.cli.screen import console

if TYPE_CHECKING:
    from luthier.evaluation import Estimate, Metric
    from luthier.pipeline import Board, SideBySide

LETTERS = 60
"""Of a setting that are shown."""


def compare(
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Ids, names or folders of runs; the first is judged."
        ),
    ],
    primary: Annotated[
        str, typer.Option("--primary", help="Metric that decides; else the first run's.")
    ] = "",
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.")
    ] = False,
) -> None:
    """Compare finished runs on the held-out rows they share; no model is asked again."""
    from luthier.pipeline import compare_runs, find_run

    found = compare_runs([find_run(workspace, name) for name in wanted], primary)
    out = console()
    if as_json:
        out.print(json.dumps(_facts(found), indent=1), markup=False, soft_wrap=True)
        return
    _print(found)
    if found.result.verdict is not None:
        out.print("\n" + textwrap.fill(found.result.verdict.paragraph, 92), markup=False)
    if found.result.decision is not None:
        out.print(found.result.decision.words, markup=False)
    out.print(f"\nreport: {found.report}", markup=False)
    if open_page:
        webbrowser.open(found.report.resolve().as_uri())


def _print(found: "SideBySide") -> None:
    from luthier.report import shortened, visible

    out, result = console(), found.result
    table = Table("run", *(metric.title for metric in result.metrics), box=None)
    for system in result.systems:
        cells = (_shown(metric, system.estimates[metric.name]) for metric in result.metrics)
        table.add_row(escape(system.name), *cells)
    out.print(f"{len(result.examples):,} held-out rows")
    out.print(table)
    if found.differing:
        table = Table("", *(escape(system.name) for system in result.systems), box=None)
        for line in found.differing:
            values = (escape(shortened(visible(value), LETTERS)) for value in line.values)
            table.add_row(escape(line.what), *values)
        out.print()
        out.print(table)


def _shown(metric: "Metric", estimate: "Estimate") -> str:
    from luthier.evaluation import format_interval, format_value

    if estimate.value is None:
        return "unknown"
    limits = format_interval(metric, estimate.low, estimate.high)
    return f"{format_value(metric, estimate.value)} ({limits})"


def _facts(found: "SideBySide") -> dict[str, object]:
    result = found.result
    return {
        "rows": len(result.examples),
        "primary": result.primary,
        "runs": [
            {"name": s.name, "estimates": {m: asdict(e) for m, e in s.estimates.items()}}
            for s in result.systems
        ],
        "comparisons": [asdict(comparison) for comparison in result.comparisons],
        "decision": result.decision and asdict(result.decision),
        "differing": [asdict(line) for line in found.differing],
        "report": str(found.report),
    }


def leaderboard(
    metric: Annotated[
        str, typer.Option("--metric", help="Metric to order by; else what most reports decide by.")
    ] = "",
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Every system that answered the same held-out rows, the best first: runs, prompts, trials."""
    from luthier.pipeline import leaderboards
    from luthier.runs import Workspace

    opened = Workspace.open(workspace)
    try:
        boards = leaderboards(opened, metric)
    finally:
        opened.close()
    out = console()
    if as_json:
        out.print(json.dumps(list(map(_board, boards)), indent=1), markup=False, soft_wrap=True)
        return
    if not boards:
        out.print(f"Nothing in {workspace} was evaluated yet; luthier train RECIPE is a beginning.")
    for board in boards:
        out.print(f"\n{board.num_rows:,} rows of {board.rows}", markup=False)
        table = Table("", "system", board.metric.title, "rows", "run or trial", box=None)
        for place, entry in enumerate(board.entries, 1):
            estimate = entry.result.estimates[board.metric.name]
            table.add_row(
                str(place), escape(entry.system), _shown(board.metric, estimate),
                f"{estimate.n:,}", escape(entry.source),
            )  # fmt: skip
        out.print(table)


def _board(board: "Board") -> dict[str, object]:
    return {
        "rows": board.rows,
        "num_rows": board.num_rows,
        "metric": board.metric.name,
        "systems": [
            {
                "system": entry.system, "source": entry.source, "model": entry.model,
                "is_tuned": entry.is_tuned,
                **asdict(entry.result.estimates[board.metric.name]),
            }
            for entry in board.entries
        ],
    }  # fmt: skip
