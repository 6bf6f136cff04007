"""luthier predict, luthier suspects: what a model of texts says, and which labels are doubtful."""

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, Wanted, WorkspaceFolder
from luthier.cli.screen import console, followed

if TYPE_CHECKING:
    from luthier.pipeline.opened_texts import TunedReader

Source = Annotated[
    Path, typer.Option("--input", help="File of texts: JSONL, JSON, CSV or Parquet, of any size.")
]
Target = Annotated[
    Path | None,
    typer.Option("--output", help="Labels go to .jsonl, vectors to .npy or .parquet."),
]
AT_ONCE = 1024
"""Rows written at once."""


def predict(
    run: Wanted,
    source: Source,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    target: Target = None,
) -> None:
    """Label or embed the texts of a file, holding few of them at once.

    All rows are looked at before the first is answered; what is written takes its name when whole.
    """
    from luthier.errors import ConfigError
    from luthier.pipeline import find_run
    from luthier.pipeline.opened_texts import open_reader

    opened = open_reader(find_run(workspace, run))
    is_classifier = opened.answering is not None
    place = target or source.with_name(
        f"{source.stem}-{'labels.jsonl' if is_classifier else 'vectors.parquet'}"
    )
    writers: dict[str, Writer] = {".jsonl": _write_labels} if is_classifier else VECTOR_WRITERS
    writer = writers.get(place.suffix)
    if writer is None:
        raise ConfigError(
            f"ends in {place.suffix or 'nothing'}",
            where=f"--output {place}",
            accepted=" or ".join(writers),
        )
    if not place.parent.is_dir() or place.resolve() == source.resolve():
        raise ConfigError(
            "would replace the file that is read" if place.parent.is_dir() else "has no folder",
            where=f"--output {place}",
            accepted="another file, in a folder that is there",
        )
    out = console()
    number = sum(1 for _ in _texts(source))
    begun = time.monotonic()
    answers = followed(opened.stream(_texts(source)), number, out)
    unfinished = place.with_name(f"{place.name}.part")
    try:
        writer(opened, answers, unfinished)
        unfinished.replace(place)
    finally:
        unfinished.unlink(missing_ok=True)
    rate = number / max(time.monotonic() - begun, 1e-9)
    peak = opened.peak_bytes() / 2**30
    out.print(f"{number:,} rows {place} ({rate:,.0f} a second, {peak:.2f} GiB at most)")


def _texts(source: Path) -> Iterator[tuple[str, str | None]]:
    """Texts of the file, one by one. Raises DataError at the first row that holds none."""
    from luthier.data import Finding, read_rows, refuse_errors
    from luthier.pipeline.opened_texts import text_of

    def refuse(finding: Finding) -> None:
        refuse_errors([finding])

    for row in read_rows(source, refuse):
        yield text_of(row)


def _write_labels(opened: "TunedReader", answers: Iterator[Any], place: Path) -> None:
    from luthier.pipeline.opened_texts import as_row

    assert opened.answering is not None, "a classifier"
    with place.open("w", encoding="utf-8") as file:
        for found in answers:
            row = as_row(found, opened.answering.names)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _write_npy(opened: "TunedReader", answers: Iterator[Any], place: Path) -> None:
    """A plain array [n, D] float32; its header is written last, when n is known."""
    import numpy as np

    number, width = 0, opened.reader.model.width
    with place.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**53, width)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for vector in answers:
            file.write(np.asarray(vector, dtype="<f4").tobytes())
            number += 1
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (number, width)})
        assert file.tell() == start, "numpy pads headers to leave room for a longer shape"


def _write_parquet(opened: "TunedReader", answers: Iterator[Any], place: Path) -> None:
    """A column `vector` of lists of float32."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    width = opened.reader.model.width
    kind = pa.list_(pa.float32(), width)
    with parquet.ParquetWriter(place, pa.schema([("vector", kind)])) as writer:
        while held := list(islice(answers, AT_ONCE)):
            flat = pa.array(np.concatenate(held))
            column = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table({"vector": column}))


Writer = Callable[["TunedReader", Iterator[Any], Path], None]
VECTOR_WRITERS: dict[str, Writer] = {".npy": _write_npy, ".parquet": _write_parquet}


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
