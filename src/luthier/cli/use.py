"""luthier data import, accept, grow: rows from real use, and from a teacher."""

from pathlib import Path
from typing import Annotated

import typer

from luthier.cli.curate import read_settings
from luthier.cli.data import Name, Reference
from luthier.cli.options import DEFAULT_WORKSPACE, WorkspaceFolder
from luthier.cli.screen import Counted, console
from luthier.errors import ConfigError

SHOWN = 5
"""Lines without a request that are named."""


def import_logs(
    name: Name,
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="LOG...",
            help="JSONL of OpenAI's stored completions, of batch output, of requests with "
            "responses, of LangSmith runs, Langfuse observations or OpenTelemetry spans.",
        ),
    ],
    requests: Annotated[
        list[Path],
        typer.Option("--requests", help="Input of the batches, which holds what was asked."),
    ] = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Read requests that were answered into candidates, each once."""
    from luthier.curation import import_logs as read
    from luthier.runs import Datasets

    out = console()
    done = read(Datasets(workspace), name, logs, requests)
    for finding in done.left_out[:SHOWN]:
        out.print(f"left out: {finding}")
    if len(done.left_out) > SHOWN:
        out.print(f"and {len(done.left_out) - SHOWN:,} more lines were left out")
    known = f", {done.num_known:,} known before" if done.num_known else ""
    version = done.version
    out.print(f"{version.reference}  {version.num_rows:,} candidates: {done.num_new:,} new{known}")


def accept(
    candidates: Reference,
    target: Annotated[
        str, typer.Argument(metavar="NAME", help="Dataset that accepted rows are put into.")
    ],
    where: Annotated[
        str,
        typer.Option("--where", help="Accept candidates of which this is true: log_score == 1"),
    ] = "",
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions", help='JSONL of {"row": ID, "accept": false} or {"row", "correction"}.'
        ),
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Make candidates rows of a dataset, as they are or corrected; rejected ones are gone."""
    from luthier.curation import Decision, decide, read_decisions, rows_where
    from luthier.runs import Datasets

    if bool(where) == (decisions is not None):
        raise ConfigError("needs --where or --decisions, and not both", where="accept")
    datasets, out = Datasets(workspace), console()
    version = datasets.find(candidates)
    if decisions is not None:
        chosen = read_decisions(decisions)
    else:
        rows = rows_where(datasets.content(version), where)
        chosen = {row.id: Decision(is_accepted=True) for row in rows}
    done = decide(datasets, version, target, chosen)
    counts = f"{done.num_accepted:,} accepted, {done.num_corrected:,} corrected"
    new = f"{done.version.reference}  {done.version.num_rows:,} rows: " if done.version else ""
    out.print(f"{new}{counts}, {done.num_rejected:,} rejected")
    left = done.remaining
    out.print(f"{left.num_rows:,} wait in {left.reference}" if left else "no candidate waits")


def grow(
    reference: Reference,
    way: Annotated[
        str,
        typer.Argument(
            metavar="WAY",
            help="paraphrase (asked in other words), answer (answered by the teacher) or hard (new "
            "rows, harder than those that are there).",
        ),
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="The teacher: a name at --url, a local model, or run:NAME."),
    ],
    url: Annotated[
        str,
        typer.Option(
            "--url",
            help="Endpoint that speaks OpenAI's protocol, as https://api.openai.com/v1; its key is "
            "in LUTHIER_ENDPOINT_KEY (of OpenAI also in OPENAI_API_KEY).",
        ),
    ] = "",
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="limit=100 (rows that it is made from); copies=1; alike=0.8; at_once=8; "
            "instructions=TEXT (told to the teacher); temperature=0.7.",
        ),
    ] = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Make more training rows from those of a version: marked, unlike all others, never a test.

    Broken off, it goes on when the same is asked again: answers are kept.
    """
    from luthier.curation import Growth, check_parted, grow_version
    from luthier.pipeline import open_teacher
    from luthier.runs import Datasets

    datasets, out = Datasets(workspace), console()
    version = datasets.find(reference)
    known = {"limit": int, "copies": int, "alike": float, "at_once": int, "instructions": str,
             "temperature": float}  # fmt: skip
    given = read_settings(settings, known)
    temperature = given.pop("temperature", 0.7)
    if not url:
        given["at_once"] = 1
    growth = Growth(way, **given)
    check_parted(version)  # before a model is loaded
    teacher = open_teacher(model, url, workspace, temperature=temperature)
    with Counted(out, "answers", None) as counted:
        done = grow_version(datasets, version, teacher, growth, lambda n, total: counted.show(n))
    for reason, number in done.dropped.items():
        out.print(f"left out: {number:,} {reason}")
    grown = done.version
    out.print(f"{grown.reference}  {grown.num_rows:,} rows, {done.num_new:,} of them new")
