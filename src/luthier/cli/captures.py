"""luthier captures: what a service has kept to learn from."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from luthier.cli.options import DEFAULT_WORKSPACE
from luthier.cli.screen import console
from luthier.cli.serving import DatabaseUrl, Folder, open_service

if TYPE_CHECKING:
    from luthier.jobs.tables import CaptureRow

app = typer.Typer(help="What a service has kept to learn from.", no_args_is_help=True)
Kind = Literal["candidates", "preferences", "ratings"]
Line = dict[str, Any]


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="JSON Lines to write.")],
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            help="candidates: all, for luthier data; preferences: corrections over answers; "
            "ratings: answers with thumbs.",
        ),
    ] = "candidates",
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
) -> None:
    """Write what was asked and answered, as rows to look through or to learn from."""
    from luthier.runs import write_atomically

    rows = list(LINES[kind](open_service(workspace, database).captures.all()))
    write_atomically(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    console().print(f"{file}: {len(rows):,} {kind}", markup=False)


@app.command("forget")
def forget(
    days: Annotated[float, typer.Argument(help="Older than so many days.", min=0)],
    workspace: Folder = DEFAULT_WORKSPACE,
    database: DatabaseUrl = "",
) -> None:
    """Forget what is older; 0 forgets all."""
    count = open_service(workspace, database).captures.forget(days)
    console().print(f"{count:,} forgotten", markup=False)


def _candidates(captures: "Iterable[CaptureRow]") -> Iterator[Line]:
    for row in captures:
        yield {"id": row.id, "created": row.created_at, "request": row.request,
               "response": row.answer, "feedback": row.feedback}  # fmt: skip


def _preferences(captures: "Iterable[CaptureRow]") -> Iterator[Line]:
    for row in captures:
        correction = (row.feedback or {}).get("correction")
        if correction:
            yield {
                "input": {"messages": row.request["messages"]},
                "preferred_output": [{"role": "assistant", "content": correction}],
                "non_preferred_output": [_answer(row)],
            }


def _ratings(captures: "Iterable[CaptureRow]") -> Iterator[Line]:
    for row in captures:
        rating = (row.feedback or {}).get("rating")
        if rating:
            yield {"messages": [*row.request["messages"], _answer(row)], "label": rating}


def _answer(row: "CaptureRow") -> Line:
    message = row.answer["choices"][0]["message"]
    return {name: value for name, value in message.items() if value is not None}


LINES: dict[str, Callable[["Iterable[CaptureRow]"], Iterator[Line]]] = {
    "candidates": _candidates, "preferences": _preferences, "ratings": _ratings,
}  # fmt: skip
