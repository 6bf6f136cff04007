"""A file becomes rows: JSONL, JSON, CSV, Parquet, Arrow, a sheet; with everything wrong listed.

Those that are text may be compressed. A file that cannot be rows at all raises DataError; a
line that cannot be a row becomes a Finding and the reading goes on. Nothing here knows what the
fields mean.
"""

import codecs
import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from luthier.data.examples import Finding, Place, Row
from luthier.data.opening import COMPRESSIONS, kind_of, lines_of, opened
from luthier.errors import DataError

MAX_ROW_BYTES = 5_000_000
"""A larger row is a mistake in the file: it is hundreds of times a model's context."""
ROWS_AT_ONCE = 1024
"""Of columns, that are held as rows."""
MAX_WHOLE_BYTES = 10**9
"""Of a file that must be held whole."""
LINE_ENDS = re.compile(r"(?<=\r)(?=[^\n])")
"""Between lines that end in a carriage return alone."""

Report = Callable[[Finding], None]


def read_rows(path: Path, report: Report) -> Iterator[Row]:
    """Rows of a file in order; what is wrong with single lines goes to `report`.

    Raises DataError when the path is no readable, non-empty file of a known kind.
    """
    reader = _check_file(path)
    try:
        yield from reader(path, report)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot be read: {error.strerror or error}", where=str(path))


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
    reader = READERS.get(kind_of(path))
    if reader is None:
        accepted = f"{', '.join(READERS)}, each also with {', '.join(COMPRESSIONS)}"
        raise DataError(f"is a {path.suffix or 'nameless'} file", where=where, accepted=accepted)
    try:
        with opened(path) as file:
            start = file.read(4)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not start:
        raise DataError("is empty", where=where, accepted="one row a line")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError("is encoded in UTF-16", where=where, accepted="UTF-8", advice="convert it")
    return reader


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = sorted(p.name for p in path.parent.iterdir() if kind_of(p) in READERS)
    return f"the folder holds {', '.join(names[:5])}" if names else "check the path"


def _read_lines(path: Path, report: Report) -> Iterator[Row]:
    with opened(path) as file:
        for number, (line, size) in enumerate(lines_of(file, MAX_ROW_BYTES), 1):
            place = Place(str(path), number)
            if size > MAX_ROW_BYTES:
                report(too_large(place, size))
                continue
            content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            fields = parse_line(place, content, report) if content.strip() else None
            if fields is not None:
                yield Row(place, fields)


def parse_line(place: Place, line: bytes, report: Report) -> dict[str, Any] | None:
    """The object on a line, or None after reporting why there is none."""
    try:
        # An error at the end is one of this line, not of the next.
        value = DECODER.decode(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        found = f"byte {error.start} of the line is not UTF-8"
        report(Finding(place, "wrong-encoding", "", found, "UTF-8", "convert the file"))
        return None
    except json.JSONDecodeError as error:
        found = f"is broken JSON at column {error.colno}: {error.msg}"
        report(Finding(place, "broken-json", "", found, "one JSON object a line"))
        return None
    except (ValueError, RecursionError) as error:
        found = _not_plain(error)
        report(Finding(place, "broken-json", "", found, "plain JSON, each key once in an object"))
        return None
    return _object(place, value, report)


def _not_plain(error: Exception) -> str:
    """What is wrong with JSON that is none of ours."""
    if isinstance(error, _NotPlainError):
        return f"holds {error}"
    # Python reads whole numbers of at most so many digits.
    is_deep = isinstance(error, RecursionError)
    return "is nested too deeply" if is_deep else "holds a number of thousands of digits"


class _NotPlainError(ValueError):
    """A JSON text holds a key twice, NaN, Infinity, or a number as large."""


def _refuse_constant(name: str) -> None:
    raise _NotPlainError(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Which value of a key that stands there twice is meant, nobody can tell."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _NotPlainError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} twice")
    return found


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotPlainError(f"{text[:20]}, a number beyond any float")
    return value


DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_number
)
"""Made once: a decoder costs as much as reading a row."""


def _object(place: Place, value: Any, report: Report) -> dict[str, Any] | None:
    if isinstance(value, dict):
        return value
    kind = type(value).__name__
    report(Finding(place, "not-an-object", "", f"is a JSON {kind}", 'an object {"field": ...}'))
    return None


def too_large(place: Place, size: int) -> Finding:
    """What is said of a row of so many bytes."""
    found = f"is {size / 1e6:.1f} MB large"
    return Finding(place, "row-too-large", "", found, f"at most {MAX_ROW_BYTES / 1e6:.0f} MB a row")


def _not_utf8(path: Path, line: int, byte: int) -> DataError:
    return DataError(
        f"byte {byte} is not UTF-8",
        where=f"{path}:{line}",
        accepted="UTF-8",
        advice="convert the file",
    )


def _decode(path: Path) -> str:
    """The whole file as text. Raises DataError where it is none, or too large to be held."""
    with opened(path) as file:
        content = file.read(MAX_WHOLE_BYTES + 1)
    if len(content) > MAX_WHOLE_BYTES:
        raise DataError(
            f"is larger than {MAX_WHOLE_BYTES / 1e9:.0f} GB",
            where=str(path),
            accepted="JSONL, which is read line by line",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _not_utf8(path, line, error.start) from error


def _read_json(path: Path, report: Report) -> Iterator[Row]:
    """Rows of one JSON array; a place counts rows from 1, since lines mean nothing here."""
    text = _decode(path)
    try:
        values = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"is broken JSON at column {error.colno}: {error.msg}",
            where=f"{path}:{error.lineno}",
            accepted="an array of objects",
            advice="name it .jsonl if it holds one object a line",
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(_not_plain(error), where=str(path)) from error
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
    csv.field_size_limit(MAX_ROW_BYTES)
    with opened(path) as file:
        yield from _csv_rows(path, csv.reader(_text_lines(path, file), strict=True), report)


def _text_lines(path: Path, file: BinaryIO) -> Iterator[str]:
    """Lines with their ends, of whichever kind. Raises DataError at the first that is none."""
    for number, (line, size) in enumerate(lines_of(file, MAX_ROW_BYTES), 1):
        if size > MAX_ROW_BYTES:
            finding = too_large(Place(str(path), number), size)
            raise DataError(finding.found, where=str(finding.place), accepted=finding.accepted)
        content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(path, number, error.start) from error
        yield from LINE_ENDS.split(text)


def _csv_rows(path: Path, reader: Any, report: Report) -> Iterator[Row]:
    try:
        header: list[str] = next(reader, [])
        _check_header(header, path)
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
        yield from _numbered(path, file.iter_batches(batch_size=ROWS_AT_ONCE))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"is no readable Parquet file: {error}", where=str(path)) from error


def _read_arrow(path: Path, report: Report) -> Iterator[Row]:
    """Rows of an Arrow stream, as Hugging Face datasets keeps them."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as source:
            yield from _numbered(path, map(_validated, pyarrow.ipc.open_stream(source)))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(f"is no readable Arrow stream: {error}", where=str(path)) from error


def _validated(batch: Any) -> Any:
    """The same batch: what a stream says of its own buffers is believed otherwise, and read."""
    batch.validate(full=True)
    return batch


def _numbered(path: Path, batches: Iterable[Any]) -> Iterator[Row]:
    parts = (
        batch.slice(start, ROWS_AT_ONCE)
        for batch in batches
        for start in range(0, batch.num_rows, ROWS_AT_ONCE)
    )
    rows = (fields for part in parts for fields in part.to_pylist())
    for number, fields in enumerate(rows, 1):
        yield Row(Place(str(path), number), _without_nulls(fields))


def _read_sheet(path: Path, report: Report) -> Iterator[Row]:
    """Rows of the first sheet of a workbook, whose first row names the columns."""
    lines = _cells(path)
    header = ["" if name is None else str(name).strip() for name in next(lines, ())]
    while header and not header[-1]:
        header.pop()
    _check_header(header, path)
    for number, cells in enumerate(lines, 2):
        place = Place(str(path), number)
        if any(value is not None for value in cells[len(header) :]):
            found = f"has cells beyond the {len(header)} columns that the first row names"
            report(Finding(place, "unnamed-columns", "", found, "a name above every column"))
            continue
        values = zip(header, cells, strict=False)
        fields = {name: _cell(value) for name, value in values if value is not None}
        if fields:
            yield Row(place, fields)


def _cells(path: Path) -> Iterator[tuple[Any, ...]]:
    """Values of a workbook's first sheet, row by row. Raises DataError where it is damaged."""
    from zipfile import ZipFile

    from openpyxl import load_workbook

    try:
        with path.open("rb") as file:
            size = sum(part.file_size for part in ZipFile(file).infolist())
            if size > MAX_WHOLE_BYTES:
                raise DataError(
                    f"holds {size:,} bytes",
                    where=str(path),
                    accepted=f"{MAX_WHOLE_BYTES:,} at most",
                    advice="write the rows as JSONL, CSV or Parquet",
                )
            book = load_workbook(file, read_only=True, data_only=True)
            if not book.worksheets:
                raise DataError("has no sheet with cells", where=str(path))
            sheet = book.worksheets[0]
            # What a sheet says of its own size may be wrong.
            sheet.reset_dimensions()
            yield from sheet.iter_rows(values_only=True)
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything in zipfile, XML and openpyxl
        raise DataError(f"is no readable workbook: {error}", where=str(path)) from error


def _cell(value: Any) -> Any:
    """A cell's value as JSON has it: dates as ISO 8601, whole numbers as such."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | bool) else str(value)


def _check_header(header: list[str], path: Path) -> None:
    if not header or len(set(header)) != len(header) or not all(name.strip() for name in header):
        raise DataError(
            f"has the header {', '.join(header)!r}",
            where=f"{path}:1",
            accepted="a distinct, non-empty name for every column",
        )


def _without_nulls(value: Any) -> Any:
    """Parquet fills fields that a row does not have with null; they are taken out again.

    What JSON does not know becomes text: times as ISO 8601, decimals as they are written, bytes as
    hexadecimal digits.
    """
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if v is not None and not is_nan(v)}
        return {str(key): _without_nulls(item) for key, item in kept.items()}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value if isinstance(value, str | int | float | None) else str(value)


def is_nan(value: Any) -> bool:
    """Whether a cell is a number that is none."""
    return isinstance(value, float) and not math.isfinite(value)


READERS: dict[str, Callable[[Path, Report], Iterator[Row]]] = {
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
    ".xlsx": _read_sheet,
}
"""File suffix -> reader."""
