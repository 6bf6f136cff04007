"""Files become a version of a dataset: every row as it is, whatever it is laid out as.

What cannot be a row refuses the whole; what rows mean is for the checks to judge.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from luthier.curation.gathering import Gathered, gathered
from luthier.data import Finding, Place, Row, Split, hash_bytes, read_rows, refuse_errors
from luthier.errors import ConfigError, DataError
from luthier.runs import Datasets, NewRow, Origin, Version

MAX_ERRORS = 1000
"""Errors after which a file is not read any further."""


def add_files(
    datasets: Datasets,
    name: str,
    files: Mapping[Split | None, Sequence[Path | str]],
    *,
    after: Version | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Version, bool]:
    """Make files the newest version of a name, and say whether it is new.

    `files` are files, folders, addresses or Hub datasets, by split; None is for what is not parted
    yet, or says itself which split it is. The rows of the version `after` come first, and it is the
    parent; without it, the newest of the name is. `columns` are new names of fields -> those that
    the files have.

    Raises:
        DataError: a file cannot be read as rows, or rows in it cannot.
        ConfigError: the name is none, or a source cannot be fetched.
    """
    parents = [after] if after else datasets.log(name)[-1:] if name in datasets.names() else []
    with ExitStack() as held:
        found = [
            (split or file.split, file)
            for split, paths in files.items()
            for file in held.enter_context(gathered([str(path) for path in paths]))
        ]
        details: dict[str, Any] = {
            "files": {file.name: hash_bytes(file.path) for _, file in found if file.path.is_file()},
            "rows_of": after.reference if after else "",
        }
        if columns:
            details["columns"] = dict(columns)

        def rows() -> Iterator[NewRow]:
            for kept in datasets.content(after).rows() if after else ():
                yield NewRow(kept.fields, kept.split, kept.origin)
            for split, file in found:
                yield from _rows_of(file, split, columns)

        origin = Origin("add", parents[-1].reference if parents else "", details)
        return datasets.add(name, rows(), origin)


class _Renamed:
    """Gives fields their new names; those that are not renamed follow."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns, self._seen = columns, set[str]()

    def fields(self, row: Row) -> dict[str, Any]:
        """A row's fields. One that a row lacks it lacks afterwards, too."""
        self._seen |= row.fields.keys()
        taken = set(self._columns.values())
        renamed = {new: row.fields[old] for new, old in self._columns.items() if old in row.fields}
        others = {name: value for name, value in row.fields.items() if name not in taken}
        twice = renamed.keys() & others.keys()
        if twice:
            raise ConfigError(
                f"would have two columns {min(twice)!r}", where=str(row.place),
                advice=f"map that one too: {min(twice)}_before={min(twice)}",
            )  # fmt: skip
        return {**renamed, **others}

    def check(self, name: str) -> None:
        """Raise ConfigError when no row had a column."""
        missing = [old for old in self._columns.values() if old not in self._seen]
        if missing:
            known = ", ".join(sorted(self._seen))
            raise ConfigError(f"has no column {missing[0]!r}", where=name, accepted=known)


def _rows_of(file: Gathered, split: Split | None, columns: Mapping[str, str]) -> Iterator[NewRow]:
    findings: list[Finding] = []
    renamed = _Renamed(columns)

    def report(finding: Finding) -> None:
        place = Place(file.name, finding.place.line)
        findings.append(replace(finding, place=place))
        if len(findings) >= MAX_ERRORS:
            refuse_errors(findings)

    try:
        for row in read_rows(file.path, report):
            new = NewRow(renamed.fields(row), split, f"{file.name}:{row.place.line}")
            if _is_text(new.text):
                yield new
            else:
                report(_half_a_pair(row.place))
    except DataError as error:
        error.where = error.where.replace(str(file.path), file.name)
        raise
    refuse_errors(findings)
    renamed.check(file.name)


def _half_a_pair(place: Place) -> Finding:
    return Finding(
        place, "lone-surrogate", "", "holds half a surrogate pair", "whole characters",
        "write it as UTF-8",
    )  # fmt: skip


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
