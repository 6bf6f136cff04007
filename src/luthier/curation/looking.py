"""What checks look at: rows with the texts in them, from files or from a version of a dataset.

Rows are seen in blocks, once. What a check needs again later, the texts, lies in a spool: a file
that is read by position, so that any number of rows may be checked in little memory.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from luthier.data import (
    Chat,
    Example,
    Message,
    Place,
    Rated,
    Report,
    Row,
    RowReader,
    Split,
    Text,
    read_rows,
)
from luthier.runs import Content

BLOCK, BLOCK_SIZE = 2048, 2**24
"""Rows that are looked at together, and characters (or bytes) at most unless it is one row."""
NO_WORDS = frozenset(("role", "id", "type", "tool_call_id"))
"""Fields whose texts are no words."""
INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Seen:
    """A row as checks see it."""

    position: int
    """From 0."""
    place: str
    split: Split | None
    example: Example
    question: str
    """What is asked, without standing instructions; of labelled texts the text."""
    answer: str
    """What is to be answered: of conversations the last answer, of labelled texts the labels."""
    fields: dict[str, Any]
    """All that the row holds."""

    @property
    def is_written(self) -> bool:
        """Whether the answer is a text that a model is to write."""
        return isinstance(self.example, Chat | Rated | Text) or hasattr(self.example, "rejected")

    @property
    def texts(self) -> list[str]:
        """All that the row says."""
        said = [message.content for message in self.example.prompt]
        return [*said, self.answer]

    @property
    def all_texts(self) -> list[str]:
        """Every text in any field, but names of roles and ids."""
        return list(texts_in(self.fields))


class RowSource:
    """Rows to be checked, and what is wrong with those that are none."""

    @property
    def named(self) -> str:
        """What they are rows of."""
        raise NotImplementedError

    def rows(self, report: Report) -> Iterator[tuple[Row, str, Split | None]]:
        """Each row, the place to name, and the split it stays in."""
        raise NotImplementedError


@dataclass(frozen=True)
class FileSource(RowSource):
    """Rows of files, by split; None is for rows that are not parted."""

    files: Mapping[Split | None, Sequence[Path]]

    @property
    def named(self) -> str:
        """The files."""
        return ", ".join(str(path) for paths in self.files.values() for path in paths)

    def rows(self, report: Report) -> Iterator[tuple[Row, str, Split | None]]:
        """Rows of all files, one after another."""
        for split, paths in self.files.items():
            for path in paths:
                for row in read_rows(path, report):
                    yield row, str(row.place), split


@dataclass(frozen=True)
class VersionSource(RowSource):
    """Rows of a version."""

    content: Content
    reference: str

    @property
    def named(self) -> str:
        """The version."""
        return self.reference

    def rows(self, report: Report) -> Iterator[tuple[Row, str, Split | None]]:
        """Rows in order; places name the version's row, and where it came from."""
        for kept in self.content.rows():
            row = Row(Place(self.reference, kept.position), kept.fields)
            yield row, f"{row.place} ({kept.origin})", kept.split


def seen(source: RowSource, report: Report) -> Iterator[list[Seen]]:
    """All rows that are examples, in blocks; positions count those that are none too."""
    block: list[Seen] = []
    size = 0
    for row in _seen_one_by_one(source, report):
        length = len(row.question) + len(row.answer)
        if block and (len(block) == BLOCK or size + length > BLOCK_SIZE):
            yield block
            block, size = [], 0
        block.append(row)
        size += length
    if block:
        yield block


def _seen_one_by_one(source: RowSource, report: Report) -> Iterator[Seen]:
    readers: dict[Split | None, RowReader] = {}
    for position, (row, place, split) in enumerate(source.rows(report)):
        reader = readers.setdefault(split, RowReader(report))
        example = reader.example(row)
        if example is not None:
            question, answer = question_of(example), answer_of(example.target)
            yield Seen(position, place, split, example, question, answer, row.fields)


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a value, as deep as they are."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in NO_WORDS:
                yield from texts_in(item)


def question_of(example: Example) -> str:
    """What is asked, standing instructions left out."""
    said = [m.content for m in example.prompt if m.role not in INSTRUCTIONS]
    return "\n".join(said)


def answer_of(message: Message) -> str:
    """What is answered, calls of tools as JSON."""
    calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    return "\n".join([message.content, *map(json.dumps, calls)]).strip("\n")


def folded(text: str) -> str:
    """The words alone: neither case nor white space tells two texts apart."""
    return " ".join(text.casefold().split())


class Spool:
    """Texts by number, kept in a file that goes away with this."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=2**20)  # noqa: SIM115 - closed on exit
        self._ends = Growing(np.uint64)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the texts go."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, texts: Sequence[str]) -> None:
        """Keep texts behind the others."""
        contents = [text.encode("utf-8", "surrogatepass") for text in texts]
        start = int(self._ends.array[-1]) if len(self._ends) else 0
        self._file.write(b"".join(contents))
        lengths = np.fromiter((len(content) for content in contents), np.uint64, len(contents))
        self._ends.extend(np.cumsum(lengths, dtype=np.uint64) + np.uint64(start))

    def content(self, number: int) -> bytes:
        """One of them, in UTF-8."""
        start, end = self._bounds(number, number + 1)
        return os.pread(self._flushed(), end - start, start)

    def text(self, number: int) -> str:
        """One of them."""
        return self.content(number).decode("utf-8", "surrogatepass")

    def size(self, number: int) -> int:
        """Bytes of one of them."""
        start, end = self._bounds(number, number + 1)
        return end - start

    def blocks(self, most: int = BLOCK) -> Iterator[tuple[int, list[bytes]]]:
        """All, in order and in UTF-8: the number of the first, and so many at most."""
        last = 0
        while last < len(self):
            first, (start, _) = last, self._bounds(last, last)
            fitting = np.searchsorted(self._ends.array, np.uint64(start + BLOCK_SIZE), "right")
            last = min(first + most, max(first + 1, int(fitting)))
            _, end = self._bounds(first, last)
            block = os.pread(self._flushed(), end - start, start)
            ends = [int(e) - start for e in self._ends.array[first:last]]
            yield first, [block[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    def _bounds(self, first: int, last: int) -> tuple[int, int]:
        ends = self._ends.array
        return int(ends[first - 1]) if first else 0, int(ends[last - 1]) if last else 0

    def _flushed(self) -> int:
        self._file.flush()
        return self._file.fileno()


class Growing:
    """An array that grows at its end, without holding everything twice."""

    def __init__(self, dtype: Any) -> None:
        self._held = np.empty(64, dtype)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def array(self) -> Any:
        return self._held[: self._size]

    def extend(self, values: Any) -> None:
        size = self._size + len(values)
        if size > len(self._held):
            self._held.resize(max(size, len(self._held) * 3 // 2), refcheck=False)
        self._held[self._size : size] = values
        self._size = size
