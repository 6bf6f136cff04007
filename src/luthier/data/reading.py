"""A file becomes rows: JSONL, JSON, CSV and Parquet, line by line, with everything wrong listed.

A file that cannot be rows at all raises DataError; a line that cannot be a row becomes a Finding
and the reading goes on. Nothing here knows what the fields mean.
"""

import codecs
import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from luthier.data.examples import Finding, Place, Row
from luthier.errors import DataError

MAX_ROW_BYTES = 5_000_000
"""A larger row is a mistake in the file: it is hundreds of times a model's context."""

Report = Callable[[Finding], None]


def read_rows(path: Path, report: Report) -> Iterator[Row]:
    """Rows of a file in order; what is wrong with single lines goes to `report`.

    Raises DataError when the path is no readable, non-empty file of a known kind.
    """
    reader = _check_file(path)
    try:
        yield from reader(path, report)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def hash_bytes(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path) -> Callable[[Path, Report], Iterator[Row]]:
    where = str(path)
    if path.is_dir():
        raise DataError("is a folder", where=where, accepted=f"a file ({', '.join(READERS)})")
    if not path.exists():
        raise DataError("does not exist", where=where, advice=_neighbours(path))
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"is a {path.suffix or 'nameless'} file", where=where, accepted=", ".join(READERS)
        )
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=where) from error
    if not start:
        raise DataError("is empty", where=where, accepted="one row a line")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("is encoded in UTF-16", where=where, accepted="UTF-8", advice="convert it")
    return reader


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = sorted(p.name for p in path.parent.iterdir() if p.suffix.lower() in READERS)
    return f"the folder holds {', '.join(names[:5])}" if names else "check the path"


def _read_lines(path: Path, report: Report) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not content.strip():
                continue
            fields = _parse(Place(str(path), number), content, report)
            if fields is not None:
                yield Row(Place(str(path), number), fields)


def _parse(place: Place, line: bytes, report: Report) -> dict[str, Any] | None:
    """The object on a line, or None after reporting why there is none."""
    if len(line) > MAX_ROW_BYTES:
        report(_too_large(place, len(line)))
        return None
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        found = f"byte {error.start} of the line is not UTF-8"
        report(Finding(place, "wrong-encoding", "", found, "UTF-8", "convert the file"))
        return None
    except json.JSONDecodeError as error:
        found = f"is broken JSON at column {error.colno}: {error.msg}"
        report(Finding(place, "broken-json", "", found, "one JSON object a line"))
        return None
    except (_NotANumberError, RecursionError) as error:
        found = f"holds {error}" if isinstance(error, _NotANumberError) else "is nested too deeply"
        report(
            Finding(place, "broken-json", "", found, "plain JSON values", "use null or a number")
        )
        return None
    return _object(place, value, report)


class _NotANumberError(ValueError):
    """A JSON text holds NaN or Infinity, which JSON does not know."""


def _refuse_constant(name: str) -> None:
    raise _NotANumberError(name)


def _object(place: Place, value: Any, report: Report) -> dict[str, Any] | None:
    if isinstance(value, dict):
        return value
    kind = type(value).__name__
    report(Finding(place, "not-an-object", "", f"is a JSON {kind}", 'an object {"field": ...}'))
    return None


def _too_large(place: Place, size: int) -> Finding:
    found = f"is {size / 1e6:.1f} MB large"
    return Finding(place, "row-too-large", "", found, f"at most {MAX_ROW_BYTES / 1e6:.0f} MB a row")


def _decode(path: Path) -> str:
    """The whole file as text; DataError names the first line that is not UTF-8."""
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"byte {error.start} is not UTF-8",
            where=f"{path}:{line}",
            accepted="UTF-8",
            advice="convert the file",
        ) from error


def _read_json(path: Path, report: Report) -> Iterator[Row]:
    """Rows of one JSON array; a place counts rows from 1, since lines mean nothing here."""
    try:
        values = json.loads(_decode(path), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DataError(
            f"is broken JSON at column {error.colno}: {error.msg}",
            where=f"{path}:{error.lineno}",
            accepted="an array of objects",
            advice="name it .jsonl if it holds one object a line",
        ) from error
    except (_NotANumberError, RecursionError) as error:
        raise DataError(f"holds {error or 'too deep a nesting'}", where=str(path)) from error
    if not isinstance(values, list) or not values:
        raise DataError(
            f"holds a JSON {type(values).__name__}" if values else "holds no row",
            where=str(path),
            accepted="an array of objects",
        )
    for number, value in enumerate(values, 1):
        fields = _object(Place(str(path), number), value, report)
        if fields is not None:
            yield Row(Place(str(path), number), fields)


def _read_csv(path: Path, report: Report) -> Iterator[Row]:
    """Rows of a CSV with a header; a row that spans lines is placed at its first."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            yield from _csv_rows(path, csv.reader(file, strict=True), report)
        except UnicodeDecodeError:
            _decode(path)  # says in which line
            raise


def _csv_rows(path: Path, reader: Any, report: Report) -> Iterator[Row]:
    try:
        header: list[str] = next(reader, [])
        if len(set(header)) != len(header) or not all(name.strip() for name in header):
            raise DataError(
                f"has the header {', '.join(header)!r}",
                where=f"{path}:1",
                accepted="a distinct, non-empty name for every column",
            )
        first_line = reader.line_num + 1
        for cells in reader:
            place = Place(str(path), first_line)
            first_line = reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                found = f"has {len(cells)} cells"
                report(Finding(place, "uneven-row", "", found, f"{len(header)}, as in the header"))
                continue
            yield Row(place, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"is broken CSV: {error}", where=f"{path}:{reader.line_num}") from error


def _read_parquet(path: Path, report: Report) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for fields in batch.to_pylist():
                number += 1
                yield Row(Place(str(path), number), _without_nulls(fields))
    except pyarrow.ArrowException as error:
        raise DataError(f"is no readable Parquet file: {error}", where=str(path)) from error


def _without_nulls(value: Any) -> Any:
    """Parquet fills fields that a row does not have with null; they are taken out again."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def is_nan(value: Any) -> bool:
    """Whether a cell is a number that is none."""
    return isinstance(value, float) and not math.isfinite(value)


READERS: dict[str, Callable[[Path, Report], Iterator[Row]]] = {
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
"""File suffix -> reader."""
