"""Files become a version of a dataset: every row as it is, whatever it is laid out as.

What cannot be a row refuses the whole; what rows mean is for the checks to judge.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from luthier.data import Finding, Split, hash_bytes, read_rows, refuse_errors
from luthier.runs import Datasets, NewRow, Origin, Version

MAX_ERRORS = 1000
"""Errors after which a file is not read any further."""


def add_files(
    datasets: Datasets,
    name: str,
    files: Mapping[Split | None, Sequence[Path]],
    *,
    after: Version | None = None,
) -> tuple[Version, bool]:
    """Make files the newest version of a name, and say whether it is new.

    `files` are those of each split; None is for rows that are not parted yet. The rows of the
    version `after` come first, and it is the parent; without it, the newest of the name is.

    Raises:
        DataError: a file cannot be read as rows, or rows in it cannot.
        ConfigError: the name is none.
    """
    parents = [after] if after else datasets.log(name)[-1:] if name in datasets.names() else []
    named = {str(path): hash_bytes(path) for paths in files.values() for path in paths}
    details = {"files": named, "rows_of": after.reference if after else ""}
    origin = Origin("add", parents[-1].reference if parents else "", details)

    def rows() -> Iterator[NewRow]:
        if after:
            for kept in datasets.content(after).rows():
                yield NewRow(kept.fields, kept.split, kept.origin)
        for split, paths in files.items():
            for path in paths:
                yield from _rows_of(path, split)

    return datasets.add(name, rows(), origin)


def _rows_of(path: Path, split: Split | None) -> Iterator[NewRow]:
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if len(findings) >= MAX_ERRORS:
            refuse_errors(findings)

    for row in read_rows(path, report):
        new = NewRow(row.fields, split, str(row.place))
        if _is_text(new.text):
            yield new
        else:
            report(
                Finding(
                    row.place, "lone-surrogate", "", "holds half a surrogate pair",
                    "whole characters", "write it as UTF-8",
                )
            )  # fmt: skip
    refuse_errors(findings)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
