"""A file of texts of any size is answered into another; what is broken off is gone on with.

Answers are appended to an unfinished file beside the target, whose name says what was asked of
what: labels as lines of JSON, vectors as bare float32. Asked the same again, whole answers that
are there are kept. The target takes its name when all rows are answered.
"""

import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from luthier.data import Finding, read_rows, refuse_errors
from luthier.errors import ConfigError
from luthier.pipeline.asking import Answering
from luthier.pipeline.opened_texts import TunedReader, Wanted, as_row, check_pairing, text_of
from luthier.runs import atomic_file

LABELS = ".jsonl"
BLOCK = 2**20
ROWS_AT_ONCE = 8192
"""Vectors of a Parquet file that are held at once."""

Follow = Callable[[Iterator[Any], int, int], Iterator[Any]]
"""Answers to come, how many rows are answered already, and how many there are -> the answers."""


@dataclass(frozen=True)
class Predicted:
    """What came of it."""

    place: Path
    num_rows: int
    num_kept: int
    """Rows that an earlier call had answered."""


def predict_file(
    opened: TunedReader,
    source: Path,
    place: Path | None = None,
    *,
    as_passages: bool = False,
    follow: Follow = lambda answers, done, total: answers,
) -> Predicted:
    """Answer all texts of a file, in order, holding few of them at once.

    All rows are looked at before the first is answered. Labels go to .jsonl, vectors to .npy (an
    array [n, D] float32) or .parquet (a column `vector`); without a place, beside the source.

    Raises:
        ConfigError: the place has no such ending or no folder, or is the source.
        DataError: a row holds no text.
    """
    place = _checked(opened, source, place)
    wanted: Wanted = "passage" if as_passages else "query"
    wanted = "answer" if opened.answering is not None else wanted
    total = sum(1 for _ in texts_in(source, wanted, opened.answering))
    unfinished = _unfinished(opened, source, place, as_passages=as_passages)
    width = 4 * opened.reader.model.width
    with unfinished.open("a+b") as file:
        kept = _keep_lines(file) if place.suffix == LABELS else _keep_vectors(file, width)
        rest = islice(texts_in(source, wanted, opened.answering), kept, None)
        for answer in follow(opened.stream(rest, as_passages=as_passages), kept, total):
            file.write(_as_bytes(opened, answer))
    if place.suffix == LABELS:
        unfinished.replace(place)
    else:
        _write_vectors(unfinished, place, total, opened.reader.model.width)
    return Predicted(place, total, kept)


def texts_in(
    source: Path, wanted: Wanted, answering: Answering | None
) -> Iterator[tuple[str, str | None]]:
    """Texts of a file, one by one. Raises DataError at the first row that holds none."""

    def refuse(finding: Finding) -> None:
        refuse_errors([finding])

    for row in read_rows(source, refuse):
        text, second = text_of(row, wanted)
        if answering is not None:
            check_pairing(answering, second, str(row.place))
        yield text, second


def _checked(opened: TunedReader, source: Path, place: Path | None) -> Path:
    is_classifier = opened.answering is not None
    endings = (LABELS,) if is_classifier else (".npy", ".parquet")
    place = place or source.with_name(
        f"{source.stem}-{'labels.jsonl' if is_classifier else 'vectors.parquet'}"
    )
    if place.suffix not in endings:
        found, accepted = f"ends in {place.suffix or 'nothing'}", " or ".join(endings)
    elif not place.parent.is_dir():
        found, accepted = "has no folder", "a file in a folder that is there"
    elif place.resolve() == source.resolve():
        found, accepted = "would replace the file that is read", "another file"
    else:
        return place
    raise ConfigError(found, where=f"--output {place}", accepted=accepted)


def _unfinished(opened: TunedReader, source: Path, place: Path, *, as_passages: bool) -> Path:
    """Where answers are gathered; those to other questions are removed."""
    known = source.stat()
    asked = [opened.run.id, str(source.resolve()), known.st_size, known.st_mtime_ns, as_passages]
    digest = blake2b(json.dumps(asked).encode(), digest_size=6).hexdigest()
    # Both kinds of vectors are gathered alike.
    wanted = place.with_name(f"{place.name}.{digest}.part")
    for other in place.parent.glob(f"{glob.escape(place.name)}.*.part"):
        if other != wanted:
            other.unlink()
    return wanted


def _keep_lines(file: BinaryIO) -> int:
    """Cut what follows the last whole line off; how many there are."""
    number, end, start = 0, 0, 0
    file.seek(0)
    while block := file.read(BLOCK):
        number += block.count(b"\n")
        if b"\n" in block:
            end = start + block.rindex(b"\n") + 1
        start += len(block)
    file.truncate(end)
    return number


def _keep_vectors(file: BinaryIO, width: int) -> int:
    number = file.seek(0, os.SEEK_END) // width
    file.truncate(number * width)
    return number


def _as_bytes(opened: TunedReader, answer: Any) -> bytes:
    if opened.answering is None:
        return np.asarray(answer, dtype="<f4").tobytes()
    row = as_row(answer, opened.answering.names)
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _write_vectors(gathered: Path, place: Path, number: int, width: int) -> None:
    """The finished file, from the bare vectors; those are removed."""
    with atomic_file(place) as finished:
        if place.suffix == ".npy":
            _write_npy(gathered, finished, (number, width))
        else:
            _write_parquet(gathered, finished, width)
    gathered.unlink()


def _write_npy(gathered: Path, place: Path, shape: tuple[int, int]) -> None:
    with place.open("wb") as file, gathered.open("rb") as vectors:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        shutil.copyfileobj(vectors, file, BLOCK)


def _write_parquet(gathered: Path, place: Path, width: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([("vector", pa.list_(pa.float32(), width))])
    with parquet.ParquetWriter(place, schema) as writer, gathered.open("rb") as vectors:
        while block := vectors.read(ROWS_AT_ONCE * width * 4):
            flat = pa.array(np.frombuffer(block, dtype="<f4"))
            column = pa.FixedSizeListArray.from_arrays(flat, width)
            writer.write_table(pa.table({"vector": column}))
