"""Whether the lines of a file are rows, and nothing else: as fast as they can be read.

A JSONL file is judged in parts by several processes. Lines that are surely right are passed at
once, the others read as every reader of rows reads them.
"""

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

from luthier.data import (
    MAX_ROW_BYTES,
    Finding,
    Place,
    Report,
    Row,
    RowReader,
    parse_line,
    read_rows,
    recognise,
    sure_of,
    too_large,
)
from luthier.runs import num_cores

PART = 2**24
"""Bytes that a process judges at a time."""
WORTH_IT = 2**26
"""Bytes of a file from which more processes than one pay."""
MAX_FINDINGS = 1000
"""Of a part; a file with more is no file of rows."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a part of a file holds."""

    num_lines: int
    num_rows: int
    findings: tuple[Finding, ...]
    """By the line in the part, from 1."""


def check_format(
    path: Path, report: Report, observe: Callable[[int], None] = lambda number: None
) -> int:
    """Report every line of a file that is no row, as reading it would; how many rows there are.

    Raises DataError where the file cannot be rows at all.
    """
    first = next(_first_rows(path), None)
    parts = _parts(path) if first and path.suffix == ".jsonl" else []
    if first is None or not parts:
        reader = RowReader(report)
        for row in read_rows(path, report):
            reader.example(row)
        return reader.num_rows
    judge = partial(_judge, path, first.fields)
    line = number = 0
    for judged in _judged(judge, parts, path.stat().st_size):
        for finding in judged.findings:
            place = Place(str(path), line + finding.place.line)
            report(replace(finding, place=place))
        line, number = line + judged.num_lines, number + judged.num_rows
        observe(number)
    return number


def _first_rows(path: Path) -> Iterator[Row]:
    """Rows whose layout is known, of the first lines of the file."""
    for row in read_rows(path, lambda finding: None):
        if recognise(row.fields) is not None:
            yield row


def _judged(
    judge: Callable[[tuple[int, int]], _Judged], parts: Sequence[tuple[int, int]], size: int
) -> Iterator[_Judged]:
    """What each part holds, in order."""
    if size < WORTH_IT or num_cores() < 2:
        yield from map(judge, parts)
        return
    # Its processes begin anew without running the program that asks for them once more.
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=num_cores(), return_as="generator")
    yield from pool(delayed(judge)(part) for part in parts)


def _parts(path: Path) -> list[tuple[int, int]]:
    """Ranges of bytes that end with a line; nothing where a line is too large to be held."""
    size, ends = path.stat().st_size, [0]
    with path.open("rb") as file:
        while ends[-1] < size:
            file.seek(min(ends[-1] + PART, size))
            rest = file.readline(MAX_ROW_BYTES)
            if len(rest) == MAX_ROW_BYTES:
                return []
            ends.append(file.tell())
    return list(pairwise(ends))


def _judge(path: Path, known: dict[str, object], part: tuple[int, int]) -> _Judged:
    start, end = part
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(end - start)
    if start == 0:
        content = content.removeprefix(codecs.BOM_UTF8)
    findings: list[Finding] = []
    reader = RowReader(findings.append)
    reader.layout = recognise(dict(known))
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    odd, num_sure = _odd(lines, frozenset(known))
    for number in odd:
        if len(lines[number - 1]) > MAX_ROW_BYTES:
            findings.append(too_large(Place(str(path), number), len(lines[number - 1]) + 1))
            continue
        fields = parse_line(Place(str(path), number), lines[number - 1], findings.append)
        if fields is not None:
            reader.example(Row(Place(str(path), number), fields))
        if len(findings) > MAX_FINDINGS:
            break
    return _Judged(len(lines), num_sure + reader.num_rows, tuple(findings))


def _odd(lines: Sequence[bytes], fields: frozenset[str]) -> tuple[list[int], int]:
    """Numbers of lines that are not surely right, and how many are."""
    is_right = sure_of(fields) or (lambda line: False)
    odd = [
        number
        for number, line in enumerate(lines, 1)
        if len(line) > MAX_ROW_BYTES or not is_right(line)
    ]
    filled = [number for number in odd if lines[number - 1].strip()]
    return filled, len(lines) - len(odd)
