"""luthier runs, luthier report: what was done before."""

import json
import webbrowser
from typing import Annotated

import typer
from rich.table import Table

from luthier.cli.options import DEFAULT_WORKSPACE, AsJson, Wanted, WorkspaceFolder
from luthier.cli.screen import console
from luthier.errors import ConfigError

app = typer.Typer(help="List and show runs.", no_args_is_help=True)

Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]


@app.command("list")
def list_runs(workspace: WorkspaceFolder = DEFAULT_WORKSPACE, as_json: AsJson = False) -> None:
    """All runs, newest first."""
    from dataclasses import asdict

    from luthier.runs import Workspace

    opened = Workspace.open(workspace)
    records = [run.record for run in opened.list()]
    opened.close()
    out = console()
    if as_json:
        out.print(json.dumps([asdict(record) for record in records], indent=1))
        return
    if not records:
        out.print(f"No runs in {workspace} yet; luthier train RECIPE makes one.")
        return
    table = Table("run", "status", "decision", "metric", "prompt", "tuned", box=None)
    for record in records:
        values = (f"{v:.3f}" if v is not None else "" for v in (record.before, record.after))
        table.add_row(record.id, record.status, record.decision, record.metric, *values)
    out.print(table)


@app.command("show")
def show(run: Wanted, workspace: WorkspaceFolder = DEFAULT_WORKSPACE) -> None:
    """One run: its record, and where its files are."""
    from dataclasses import asdict

    from luthier.pipeline import find_run

    found = find_run(workspace, run)
    out = console()
    for name, value in asdict(found.record).items():
        if value not in ("", None):
            out.print(f"{name:16} {value}")
    out.print(f"{'folder':16} {found.folder}")


def report(
    run: Wanted, workspace: WorkspaceFolder = DEFAULT_WORKSPACE, open_page: Open = False
) -> None:
    """Where a run's report is, and its verdict."""
    from luthier.evaluation import Decision
    from luthier.pipeline import find_run

    found = find_run(workspace, run)
    page, content = found.path("report.html"), found.path("report.json")
    if not content.is_file():
        raise ConfigError(
            f"is {found.record.status} and has no report yet",
            where=found.id,
            advice="run luthier train with the same recipe again; it goes on where it stopped",
        )
    evaluation = json.loads(content.read_text("utf-8")).get("evaluation") or {}
    out = console()
    if evaluation.get("verdict"):
        out.print(evaluation["verdict"]["paragraph"] + "\n")
    if evaluation.get("decision"):
        out.print(Decision(**evaluation["decision"]).words + "\n", markup=False)
    out.print(f"Report {page.resolve()}")
    if open_page:
        webbrowser.open(page.resolve().as_uri())
