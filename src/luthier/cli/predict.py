"""luthier predict, luthier suspects: what a model of texts says, and which labels are doubtful."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, Wanted, WorkspaceFolder
from luthier.cli.screen import console

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
    """Label or embed the texts of a file, holding few of them at once."""
    from luthier.errors import ConfigError
    from luthier.pipeline import find_run
    from luthier.pipeline.opened_texts import open_reader

    opened = open_reader(find_run(workspace, run))
    is_classifier = opened.answering is not None
    place = target or source.with_name(
        f"{source.stem}-{'labels.jsonl' if is_classifier else 'vectors.parquet'}"
    )
    writers = {".jsonl": _write_labels} if is_classifier else VECTOR_WRITERS
    writer = writers.get(place.suffix)
    if writer is None:
        raise ConfigError(
            f"ends in {place.suffix or 'nothing'}",
            where=f"--output {place}",
            accepted=" or ".join(writers),
        )
    number = writer(opened, source, place)
    console().print(f"{number:,} rows {place}")


def _texts(source: Path) -> Iterator[tuple[str, str | None]]:
    """Texts of the file, one by one. Raises DataError at the first row that holds none."""
    from luthier.data import Finding, read_rows, refuse_errors
    from luthier.pipeline.opened_texts import text_of

    def refuse(finding: Finding) -> None:
        refuse_errors([finding])

    for row in read_rows(source, refuse):
        yield text_of(row)


def _write_labels(opened: "TunedReader", source: Path, place: Path) -> int:
    from luthier.pipeline.opened_texts import as_row

    assert opened.answering is not None, "a classifier"
    number = 0
    with place.open("w", encoding="utf-8") as file:
        for found in opened.stream(_texts(source)):
            row: Any = as_row(found, opened.answering.names)  # type: ignore[arg-type]
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            number += 1
    return number


def _write_npy(opened: "TunedReader", source: Path, place: Path) -> int:
    """A plain array [n, D] float32; its header is written last, when n is known."""
    import numpy as np

    number, width = 0, opened.reader.model.width
    with place.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (2**53, width)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for vector in opened.stream(_texts(source)):
            file.write(np.asarray(vector, dtype="<f4").tobytes())
            number += 1
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (number, width)})
        assert file.tell() == start, "numpy pads headers to leave room for a longer shape"
    return number


def _write_parquet(opened: "TunedReader", source: Path, place: Path) -> int:
    """A column `vector` of lists of float32."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    width, number = opened.reader.model.width, 0
    kind = pa.list_(pa.float32(), width)
    with parquet.ParquetWriter(place, pa.schema([("vector", kind)])) as writer:
        held: list[Any] = []

        def flush() -> None:
            if held:
                flat = pa.array(np.concatenate(held))
                column = pa.FixedSizeListArray.from_arrays(flat, width)
                writer.write_table(pa.table({"vector": column}))
                held.clear()

        for vector in opened.stream(_texts(source)):
            held.append(vector)
            number += 1
            if len(held) == AT_ONCE:
                flush()
        flush()
    return number


VECTOR_WRITERS = {".npy": _write_npy, ".parquet": _write_parquet}


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
