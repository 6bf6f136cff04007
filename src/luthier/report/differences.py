"""Where an answer departs from its reference, as pieces of text to be marked.

Two texts go in, pieces come out: text they share, text the answer adds, text it lacks. Put
together, the shared and added pieces are the answer, character for character. Words are compared
first, then letters inside of words that are nearly the same. Answers in JSON are compared by what
they mean: order of keys and white space are not differences. Where almost nothing is shared,
marking everything would only hide the answer, so nothing is marked and `kind` says so.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, Literal

PieceKind = Literal["same", "added", "missing"]
DifferenceKind = Literal["identical", "same meaning", "differs", "unlike", "empty"]

MIN_SHARED = 0.3
"""Below this similarity of words an answer is unlike its reference, and shown unmarked."""
MIN_SHARED_LETTERS = 0.6
MAX_CHARACTERS = 2_000
"""Characters of an answer that are compared and shown; the time to compare grows quadratically."""

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d]+|\s+|[^\w\s]|_")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text and whether it is shared, added by the answer, or missing from it."""

    kind: PieceKind
    text: str


@dataclass(frozen=True, slots=True)
class Difference:
    """How an answer relates to its reference. `num_hidden` characters were cut from its end."""

    kind: DifferenceKind
    pieces: tuple[Piece, ...]
    num_hidden: int = 0


def compare_texts(reference: str, answer: str) -> Difference:
    """Compare an answer with its reference."""
    shown = answer[:MAX_CHARACTERS]
    num_hidden = len(answer) - len(shown)
    if not answer:
        return Difference("empty", ())
    if answer == reference:
        return Difference("identical", (Piece("same", shown),), num_hidden)
    meant, said = _as_json(reference), _as_json(answer)
    both_json = meant is not None and said is not None
    if both_json and _canonical(meant) == _canonical(said):
        return Difference("same meaning", (Piece("same", shown),), num_hidden)
    if both_json:
        reference = json.dumps(_in_order_of(said, meant), ensure_ascii=False)
    old, new = _TOKEN.findall(reference[:MAX_CHARACTERS]), _TOKEN.findall(shown)
    matcher = SequenceMatcher(None, _keys(old, both_json), _keys(new, both_json), autojunk=False)
    if _shared_share(matcher, old, new) < MIN_SHARED:
        return Difference("unlike", (Piece("same", shown),), num_hidden)
    pieces = [
        piece
        for tag, start, end, from_, to in matcher.get_opcodes()
        for piece in _pieces(tag, old[start:end], new[from_:to])
    ]
    return Difference("differs", tuple(_joined(pieces)), num_hidden)


def _pieces(tag: str, old: list[str], new: list[str]) -> list[Piece]:
    """The pieces of one edit, with letters compared where one word stands for another."""
    if tag == "equal":
        return [Piece("same", "".join(new))]
    if len(old) == len(new) == 1 and old[0].isalpha() and new[0].isalpha():
        matcher = SequenceMatcher(None, old[0], new[0], autojunk=False)
        if matcher.ratio() >= MIN_SHARED_LETTERS:
            return [
                piece
                for letters, start, end, from_, to in matcher.get_opcodes()
                for piece in _marked(letters, old[0][start:end], new[0][from_:to])
            ]
    return _marked(tag, "".join(old), "".join(new))


def _marked(tag: str, old: str, new: str) -> list[Piece]:
    if tag == "equal":
        return [Piece("same", new)]
    return [piece for piece in (Piece("missing", old), Piece("added", new)) if piece.text]


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """Neighbours of one kind become one piece."""
    for kind, neighbours in groupby(pieces, key=lambda piece: piece.kind):
        yield Piece(kind, "".join(piece.text for piece in neighbours))


def _keys(tokens: list[str], ignore_space: bool) -> list[str]:
    """What tokens are compared by: in JSON, any white space equals any other."""
    return [" " if ignore_space and token.isspace() else token for token in tokens]


def _shared_share(matcher: "SequenceMatcher[str]", old: list[str], new: list[str]) -> float:
    """Share of word characters in both texts that match; punctuation and spaces do not count."""
    total = sum(len(token) for token in (*old, *new) if token.isalnum())
    shared = sum(
        len(token)
        for block in matcher.get_matching_blocks()
        for token in old[block.a : block.a + block.size]
        if token.isalnum()
    )
    return 2 * shared / total if total else matcher.ratio()


def _as_json(text: str) -> Any:
    """The object or list that the text holds, or None: single values are compared as text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _in_order_of(model: Any, value: Any) -> Any:
    """The value with its keys in the order in which the model has them, its own keys last."""
    if isinstance(model, dict) and isinstance(value, dict):
        keys = [
            *(key for key in model if key in value),
            *(key for key in value if key not in model),
        ]
        return {key: _in_order_of(model.get(key), value[key]) for key in keys}
    if isinstance(model, list) and isinstance(value, list):
        models = [*model, *([None] * (len(value) - len(model)))]
        return [_in_order_of(model, item) for model, item in zip(models, value, strict=False)]
    return value
