"""luthier predict, luthier suspects: what a model of texts says, and which labels are doubtful."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, Wanted, WorkspaceFolder
from luthier.cli.screen import console, followed

Source = Annotated[
    Path, typer.Option("--input", help="Texts: JSONL, CSV or Parquet of any size, JSON up to 1 GB.")
]
Target = Annotated[
    Path | None,
    typer.Option("--output", help="Labels go to .jsonl, vectors to .npy or .parquet."),
]
AsPassages = Annotated[
    bool, typer.Option("--passages", help="Embed texts to be found, rather than to search with.")
]


def predict(
    run: Wanted,
    source: Source,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    target: Target = None,
    as_passages: AsPassages = False,
) -> None:
    """Label or embed the texts of a file, holding few of them at once.

    All rows are looked at before the first is answered; what is written takes its name when whole.
    Interrupted, it goes on where it stopped when the same is asked again.
    """
    from luthier.pipeline import find_run
    from luthier.pipeline.opened_texts import open_reader
    from luthier.pipeline.predicting import predict_file

    out = console()
    opened = open_reader(find_run(workspace, run))
    begun = time.monotonic()

    def follow(answers: Iterator[Any], done: int, total: int) -> Iterator[Any]:
        nonlocal begun
        if done:
            out.print(f"goes on after {done:,} rows that are answered already")
        begun = time.monotonic()
        return followed(answers, total - done, out)

    if opened.answering is not None and opened.answering.thresholds:
        pairs = zip(opened.answering.names, opened.answering.thresholds, strict=True)
        limits = ", ".join(f"{name} {limit:.3g}" for name, limit in pairs)
        out.print(f"a label is given from a probability of: {limits}")
    done = predict_file(opened, source, target, as_passages=as_passages, follow=follow)
    rate = (done.num_rows - done.num_kept) / max(time.monotonic() - begun, 1e-9)
    peak = opened.peak_bytes() / 2**30
    out.print(f"{done.num_rows:,} rows {done.place} ({rate:,.0f} a second, {peak:.2f} GiB at most)")


def suspects(
    run: Wanted,
    target: Annotated[Path, typer.Option("--output", help="JSONL file to write.")],
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Write the training rows whose labels are doubtful, to be looked at again."""
    from luthier.pipeline import find_run
    from luthier.pipeline.opened_texts import write_suspects

    number = write_suspects(find_run(workspace, run), target)
    console().print(f"{number:,} rows {target}")
