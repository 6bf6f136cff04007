"""luthier data map: how a run learnt its rows."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceFolder
from luthier.cli.screen import console
from luthier.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from luthier.curation import Learnt

WORDS = {
    "easy": "the model was soon sure of the answer",
    "ambiguous": "it changed its mind: these teach most",
    "hard": "it hardly ever thought so: rare, difficult, or wrong; look at these",
}


def map_rows(
    wanted: Annotated[
        str, typer.Argument(metavar="RUN", help="Id, beginning of an id, name or folder.")
    ],
    picture: Annotated[
        Path | None, typer.Option("--output", help="Draw the rows into a .png.")
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Say how a run learnt its rows: easily, with doubt or hardly (dataset cartography).

    `data select --set run=RUN` chooses rows by it.
    """
    from luthier.report import cartography_picture
    from luthier.runs import write_atomically

    if picture is not None and picture.suffix != ".png":
        raise ConfigError(f"is {picture.name}", where="--output", accepted="a .png")
    run, learnt = how_learnt(wanted, workspace)
    out = console()
    if as_json:
        out.print(json.dumps({key: asdict(row) for key, row in learnt.items()}, indent=1))
    else:
        _print(run, learnt)
    if picture is not None:
        points = [(row.variability, row.confidence, row.learning) for row in learnt.values()]
        write_atomically(picture, cartography_picture(points))
        out.print(f"written: {picture}")


def how_learnt(wanted: str, workspace: Path) -> "tuple[str, Mapping[str, Learnt]]":
    """Id of a run, and how it learnt its rows."""
    from luthier.curation import learnt_in
    from luthier.runs import Workspace

    opened = Workspace.open(workspace)
    try:
        run = opened.find(wanted)
        return run.id, learnt_in(run)
    finally:
        opened.close()


def _print(run: str, learnt: "Mapping[str, Learnt]") -> None:
    out = console()
    rows = list(learnt.values())
    passes = max(row.num_passes for row in rows)
    out.print(f"{len(rows):,} different rows, {passes} pass{'es' * (passes > 1)}")
    for learning, words in WORDS.items():
        own = [row for row in rows if row.learning == learning]
        sure = sum(row.confidence for row in own) / max(1, len(own))
        out.print(f"{learning:10} {len(own):8,}  mean confidence {sure:.2f}  {words}")
    if passes == 1:
        out.print("after one pass nobody knows which are ambiguous; training.epochs: 3 would tell")
    out.print(f"choose by it: luthier data select VERSION --set run={run} "
              "--where \"learning == 'hard'\"")  # fmt: skip
