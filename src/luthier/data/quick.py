"""Lines of JSON that are surely right rows are told at once; all others are for the slow reader.

Most rows of most files are plain: a conversation of roles and texts, or two texts. msgspec decodes
such a line into what it must be, several times as fast as the readers that can say what is wrong.
A line that passes here is one that they find nothing wrong with; what does not pass may be right.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

SPACED_KEY = re.compile(rb'"\s+:')
COLON, QUOTE, BACKSLASH, SPACE = b':"\\ '
SYSTEM = ("system", "developer")


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _Chat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Turn]


class _Completion(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    prompt: str
    completion: str


class _Preference(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    prompt: str
    chosen: str
    rejected: str


class _Labelled(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    text: str
    label: str


def _chat(row: _Chat) -> int:
    turns = row.messages
    if not turns or turns[0].role == "assistant":
        return 0
    is_answered = is_begun = False
    for turn in turns:
        if not turn.content or turn.content.isspace():
            return 0
        if turn.role in SYSTEM:
            if is_begun:
                return 0
        else:
            is_begun = True
            is_answered = is_answered or turn.role == "assistant"
    return 1 + 2 * len(turns) if is_answered else 0


def _completion(row: _Completion) -> int:
    return 2 if row.prompt.strip() and row.completion.strip() else 0


def _preference(row: _Preference) -> int:
    texts = (row.prompt, row.chosen, row.rejected)
    return 3 if all(map(str.strip, texts)) and row.chosen.strip() != row.rejected.strip() else 0


def _labelled(row: _Labelled) -> int:
    return 2 if row.text.strip() and row.label.strip() else 0


KINDS: dict[frozenset[str], tuple[type[Any], Callable[[Any], int]]] = {
    frozenset(("messages",)): (_Chat, _chat),
    frozenset(("prompt", "completion")): (_Completion, _completion),
    frozenset(("prompt", "chosen", "rejected")): (_Preference, _preference),
    frozenset(("text", "label")): (_Labelled, _labelled),
}
"""Fields of a row -> what it must be, and how many keys it then has (0: not surely right)."""


@dataclass(frozen=True)
class Quick:
    """Tells what is surely right among lines that should have certain fields."""

    decoder: "msgspec.json.Decoder[Any]"
    num_keys: Callable[[Any], int]

    def is_right(self, line: bytes) -> bool:
        """Whether a line is surely a right row.

        That no key stands twice is told by counting: where none has white space behind it nor ends
        in a backslash, each ends in an unescaped quotation mark and a colon. What else looks alike
        makes such places more than keys, never fewer.
        """
        try:
            expected = self.num_keys(self.decoder.decode(line))
        except ERRORS:
            return False
        return expected == _num_colons(line)

    def num_right(self, lines: bytes) -> int:
        """How many lines there are, where all surely are right rows; else 0.

        As for one line, at a third of the cost. A line's end between } and { is in no row, and
        where every one is so and there are as many rows as lines, each line is a row.
        """
        number = lines.count(b"\n")
        if lines[:1] != b"{" or lines[-2:] != b"}\n" or lines.count(b"}\n{") != number - 1:
            return 0
        try:
            keys = [*map(self.num_keys, self.decoder.decode_lines(lines))]
        except ERRORS:
            return 0
        return (
            number
            if len(keys) == number and all(keys) and sum(keys) == _num_colons_of_many(lines)
            else 0
        )


ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def _num_colons(lines: bytes) -> int:
    """Places where a key may end; -1 where one may end otherwise.

    Those where a value begins with a colon are left out: no known key ends in one and a space.
    """
    if b'\\\\":' in lines or SPACED_KEY.search(lines):
        return -1
    begins = lines.count(b': ":') + lines.count(b':":')
    return lines.count(b'":') - lines.count(b'\\":') - begins


def _num_colons_of_many(lines: bytes) -> int:
    """As `_num_colons`, at a tenth of the cost where there are many bytes."""
    content = np.frombuffer(lines, np.uint8)
    before, is_colon = content[:-1], content[1:] == COLON
    if (is_colon & (before <= SPACE)).any() and SPACED_KEY.search(lines):
        return -1
    places = np.flatnonzero(is_colon & (before == QUOTE))
    previous, earlier = content[places - 1], content[places - 2]
    is_escaped = previous == BACKSLASH
    if (is_escaped & (earlier == BACKSLASH)).any():
        return -1
    begins = (previous == COLON) | ((previous == SPACE) & (earlier == COLON))
    return int(len(places) - is_escaped.sum() - begins.sum())


def quick_for(fields: frozenset[str]) -> Quick | None:
    """What tells right rows with these fields at once; None where nothing does."""
    kind = KINDS.get(fields)
    return None if kind is None else Quick(msgspec.json.Decoder(kind[0]), kind[1])
