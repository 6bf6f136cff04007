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
    Quick,
    Report,
    Row,
    RowReader,
    parse_line,
    quick_for,
    read_rows,
    recognise,
    too_large,
)
from luthier.runs import num_cores

PART = 2**24
"""Bytes that a process judges at a time."""
BLOCK = 2**15
"""Bytes of lines that are passed together, if all are right."""
WORTH_IT = 2**28
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
    slow = _Slowly(str(path), known)
    quick = quick_for(frozenset(known))
    for lines in _blocks(content):
        num_right = quick.num_right(lines) if quick and len(lines) <= MAX_ROW_BYTES else 0
        if num_right:
            slow.pass_by(num_right)
        else:
            slow.judge(lines, quick)
        if len(slow.findings) > MAX_FINDINGS:
            break
    return _Judged(slow.num_lines, slow.num_rows, tuple(slow.findings))


def _blocks(content: bytes) -> Iterator[bytes]:
    """Lines that are judged together."""
    start = 0
    while start < len(content):
        end = content.find(b"\n", start + BLOCK) + 1 or len(content)
        yield content[start:end]
        start = end


class _Slowly:
    """Lines one by one."""

    def __init__(self, name: str, known: dict[str, object]) -> None:
        self._name = name
        self.findings: list[Finding] = []
        self._reader = RowReader(self.findings.append)
        self._reader.layout = recognise(dict(known))
        self.num_lines = self._num_right = 0

    @property
    def num_rows(self) -> int:
        """Lines that are rows."""
        return self._num_right + self._reader.num_rows

    def pass_by(self, number: int) -> None:
        """So many lines are right."""
        self.num_lines += number
        self._num_right += number

    def judge(self, lines: bytes, quick: Quick | None) -> None:
        """Look at each; those that are surely right are passed."""
        for line in lines.removesuffix(b"\n").split(b"\n"):
            is_short = len(line) <= MAX_ROW_BYTES
            if is_short and quick is not None and quick.is_right(line):
                self.pass_by(1)
                continue
            self.num_lines += 1
            place = Place(self._name, self.num_lines)
            if not is_short:
                self.findings.append(too_large(place, len(line) + 1))
            elif line.strip():
                self._read(place, line)

    def _read(self, place: Place, line: bytes) -> None:
        fields = parse_line(place, line, self.findings.append)
        if fields is not None:
            self._reader.example(Row(place, fields))
