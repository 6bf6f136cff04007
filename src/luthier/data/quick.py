"""Lines of JSON that are surely right rows are told at once; all others are for the slow reader.

Most rows of most files are plain: a conversation of roles and texts, or two texts. msgspec decodes
such a line into what it must be, several times as fast as the readers that can say what is wrong.
A line that passes here is one that they find nothing wrong with; what does not pass may be right.
"""

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

SPACED_KEY = re.compile(rb'"\s+:')
SPACES = (b'" ', b'"\t', b'"\n', b'"\r')
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


def sure_of(fields: frozenset[str]) -> Callable[[bytes], bool] | None:
    """What tells whether a line is surely a right row with these fields; None where nothing does.

    That no key stands twice is told by counting: where none has white space behind it nor ends in a
    backslash, each ends in an unescaped quotation mark and a colon. Strings that begin with a colon
    look alike, so such places are as many as keys, or more.
    """
    kind = KINDS.get(fields)
    if kind is None:
        return None
    decode, num_keys = msgspec.json.Decoder(kind[0]).decode, kind[1]

    def is_right(line: bytes) -> bool:
        try:
            expected = num_keys(decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return False
        return (
            expected == line.count(b'":') - line.count(b'\\":')
            and b'\\\\":' not in line
            and not (any(map(line.__contains__, SPACES)) and SPACED_KEY.search(line))
        )

    return is_right
