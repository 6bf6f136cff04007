"""A version of a dataset becomes a file for elsewhere: rows as they are, or in another layout."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from luthier.data import (
    EXPORTS,
    Finding,
    Place,
    Row,
    RowReader,
    export_rows,
    refuse_errors,
)
from luthier.errors import ConfigError, DataError
from luthier.runs import Content, KeptRow, Version, atomic_file

MAX_ERRORS = 1000
"""Errors after which rows are not looked at any further."""


def export_version(
    version: Version, content: Content, place: Path, *, layout: str = "", split: str = ""
) -> int:
    """Write the rows of a version (or of one split of it) to a file; how many they are.

    Without a layout rows are written as they are, to .jsonl, .csv or .parquet.

    Raises:
        ConfigError: the file's ending, the layout or the split is unknown.
        DataError: rows cannot be written so, each with its place and why.
    """
    if layout and layout not in EXPORTS:
        raise ConfigError(f"is {layout!r}", where="layout", accepted=", ".join(EXPORTS))
    writer = WRITERS.get(place.suffix)
    if writer is None or (layout and place.suffix != ".jsonl"):
        accepted = ".jsonl" if layout else " or ".join(WRITERS)
        raise ConfigError(
            f"ends in {place.suffix or 'nothing'}", where=str(place), accepted=accepted
        )
    if split and not version.rows_in(split):
        accepted = ", ".join(version.splits) or "none: the version is not parted"
        raise ConfigError(f"has no {split} rows", where=version.reference, accepted=accepted)

    def rows() -> Iterator[KeptRow]:
        return (row for row in content.rows() if split in ("", content.split_of(row)))

    with atomic_file(place) as unfinished:
        if layout:
            _write_layout(layout, version, rows(), unfinished)
        else:
            writer(rows, unfinished)
    return version.rows_in(split) if split else version.num_rows


def _write_layout(layout: str, version: Version, rows: Iterator[KeptRow], place: Path) -> None:
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if len(findings) >= MAX_ERRORS:
            refuse_errors(findings)

    reader = RowReader(report)
    found = (Row(Place(version.reference, row.position), row.fields) for row in rows)
    examples = (example for row in found if (example := reader.example(row)) is not None)
    with place.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(export_rows(EXPORTS[layout], examples, report))
    refuse_errors(findings)


def _write_lines(rows: Callable[[], Iterator[KeptRow]], place: Path) -> None:
    with place.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row.fields, ensure_ascii=False) + "\n" for row in rows())


def _names(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Names of all fields, in the order they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _write_csv(rows: Callable[[], Iterator[KeptRow]], place: Path) -> None:
    """Texts as they are; what is no text as JSON, as reading expects it."""
    import csv

    with place.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _names(row.fields for row in rows()), restval="")
        writer.writeheader()
        for row in rows():
            writer.writerow({name: _cell(value) for name, value in row.fields.items()})


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _write_parquet(rows: Callable[[], Iterator[KeptRow]], place: Path) -> None:
    """Columns of the types that the rows have."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        # What rows hold is known only when all were seen; fields that a row lacks are null.
        schemas = [
            pa.table({name: [row.get(name) for row in some] for name in _names(some)}).schema
            for some in _in_groups(rows())
        ]
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        with parquet.ParquetWriter(place, schema) as writer:
            for some in _in_groups(rows()):
                writer.write_table(pa.Table.from_pylist(some, schema=schema))
    except pa.ArrowException as error:
        raise DataError(
            f"holds values of several types in a column: {error}",
            where=place.name,
            accepted="one type a column, or .jsonl",
        ) from error


def _in_groups(rows: Iterator[KeptRow], size: int = 4096) -> Iterator[list[dict[str, Any]]]:
    from itertools import islice

    while some := [row.fields for row in islice(rows, size)]:
        yield some


WRITERS: dict[str, Callable[[Callable[[], Iterator[KeptRow]], Path], None]] = {
    ".jsonl": _write_lines,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
