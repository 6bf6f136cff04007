"""A string that remembers which of its characters were written by which message.

The mask of a chat must say which characters of the rendered text the assistant wrote. Searching the
text for markers guesses; here the template is given traced strings, and every operation a chat
template performs on them (concatenation, trimming, splitting, replacing, slicing) carries the
origin of each character along. What comes out of one render is then exact by construction.
Operations that cannot carry it return a plain string: origin is lost, never invented.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, SupportsIndex


class Stretch(NamedTuple):
    """Characters [start, end) that stem from message number `message`."""

    start: int
    end: int
    message: int


class Traced(str):
    """Text with the stretches of it that stem from messages, in order and not overlapping."""

    __slots__ = ("_stretches",)
    _stretches: tuple[Stretch, ...]

    def __new__(cls, text: str, stretches: Iterable[Stretch] = ()) -> "Traced":
        traced = super().__new__(cls, text)
        traced._stretches = tuple(stretches)
        return traced

    @classmethod
    def written_by(cls, message: int, text: str) -> "Traced":
        """`text`, all of which stems from `message`."""
        return cls(text, (Stretch(0, len(text), message),) if text else ())

    def _cut(self, start: int, end: int) -> "Traced":
        kept = (
            Stretch(max(a, start) - start, min(b, end) - start, message)
            for a, b, message in self._stretches
            if a < end and b > start
        )
        return Traced(str.__getitem__(self, slice(start, end)), kept)

    # str() of a str subclass would copy it into a plain string, as Jinja does to every output.
    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> "Traced":
        return concat((self, other))

    def __radd__(self, other: str) -> "Traced":
        return concat((other, self))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if not isinstance(key, slice):
            start = range(len(self))[key]
            return self._cut(start, start + 1)
        start, end, step = key.indices(len(self))
        return self._cut(start, max(start, end)) if step == 1 else super().__getitem__(key)

    def lstrip(self, chars: str | None = None, /) -> "Traced":
        return self._cut(len(self) - len(super().lstrip(chars)), len(self))

    def rstrip(self, chars: str | None = None, /) -> "Traced":
        return self._cut(0, len(super().rstrip(chars)))

    def strip(self, chars: str | None = None, /) -> "Traced":
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str, /) -> "Traced":
        return self._cut(len(self) - len(super().removeprefix(prefix)), len(self))

    def removesuffix(self, suffix: str, /) -> "Traced":
        return self._cut(0, len(super().removesuffix(suffix)))

    def _locate(self, pieces: list[str]) -> list[str]:
        """The pieces, found in this order in the text, as traced cuts of it."""
        cuts: list[str] = []
        position = 0
        for piece in pieces:
            position = self.index(piece, position)
            cuts.append(self._cut(position, position + len(piece)))
            position += len(piece)
        return cuts

    def _split_at(self, separator: str, pieces: list[str]) -> list[str]:
        """The pieces between occurrences of the separator, as traced cuts."""
        cuts: list[str] = []
        position = 0
        for piece in pieces:
            cuts.append(self._cut(position, position + len(piece)))
            position += len(piece) + len(separator)
        return cuts

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        pieces = super().split(sep, maxsplit)
        return self._locate(pieces) if sep is None else self._split_at(sep, pieces)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        pieces = super().rsplit(sep, maxsplit)
        return self._locate(pieces) if sep is None else self._split_at(sep, pieces)

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._locate(super().splitlines(keepends))

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        head, middle, tail = super().partition(sep)
        return self._three(head, middle, tail)

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        head, middle, tail = super().rpartition(sep)
        return self._three(head, middle, tail)

    def _three(self, head: str, middle: str, tail: str) -> tuple[str, str, str]:
        first, second, _ = self._split_at("", [head, middle, tail])
        return first, second, self._cut(len(self) - len(tail), len(self))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> "Traced":
        if old == "":
            return Traced(super().replace(old, new, count))
        parts: list[str] = []
        for piece in self.split(old, count):
            parts += [new, piece]
        return concat(parts[1:])

    def join(self, parts: Iterable[str], /) -> "Traced":
        pieces: list[str] = []
        for part in parts:
            pieces += [self, part]
        return concat(pieces[1:])


def concat(parts: Iterable[str]) -> Traced:
    """The parts one after another, each keeping its stretches."""
    texts: list[str] = []
    stretches: list[Stretch] = []
    offset = 0
    for part in parts:
        if isinstance(part, Traced):
            stretches += [Stretch(a + offset, b + offset, m) for a, b, m in part._stretches]
        texts.append(part)
        offset += len(part)
    return Traced("".join(texts), stretches)


def stretches_of(text: str) -> tuple[Stretch, ...]:
    """Which characters of `text` stem from which message; empty for a plain string."""
    return text._stretches if isinstance(text, Traced) else ()


def messages_in(value: Any) -> set[int]:
    """Numbers of all messages whose text occurs anywhere in a nested value."""
    if isinstance(value, Traced):
        return {stretch.message for stretch in value._stretches}
    if isinstance(value, dict):
        return set().union(*(messages_in(v) | messages_in(k) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return set().union(*(messages_in(v) for v in value))
    return set()
