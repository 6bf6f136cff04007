"""Answers that are JSON, read so that two of them can be compared by value.

Text comes in; a `JsonAnswer` goes out, or None when the text is not JSON. Its leaves are the
scalars and the empty containers, each under the path of keys and indexes that leads to it; paths
and leaves together say everything the value says, so equal leaves mean equal JSON. Nothing raises
on any text: models write every kind of nonsense, nesting deeper than the interpreter's stack too.
"""

import json
from dataclasses import dataclass
from typing import Any

MAX_TRIES = 1000
"""Places where an object may begin that are looked at."""

Path = tuple[str | int, ...]
Leaf = tuple[str, Any]
"""Kind and value: the kind keeps true from equalling 1, which Python alone would not."""


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """A JSON text by value: the kind at the top, and every leaf under its path."""

    kind: str
    leaves: dict[Path, Leaf]


def read_json(text: str) -> JsonAnswer | None:
    """The text as JSON, or None when it is not.

    NaN and Infinity are Python's additions and count as broken. Of a repeated key the last one
    holds, as in every common reader. An integer of more digits than Python converts counts as
    broken too.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return JsonAnswer(_kind(value), _flatten(value))


def last_object(text: str) -> dict[str, Any] | None:
    """The last JSON object within a text, such as after what a model thought aloud; or None."""
    decoder, found, place = json.JSONDecoder(), None, text.find("{")
    for _ in range(MAX_TRIES):
        if place < 0:
            break
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)
    return found


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def _flatten(value: Any) -> dict[Path, Leaf]:
    leaves: dict[Path, Leaf] = {}
    # A list of what is still to do instead of recursion: nesting is the answer's choice.
    pending: list[tuple[Path, Any]] = [((), value)]
    while pending:
        path, value = pending.pop()
        if value and isinstance(value, dict):
            pending.extend(((*path, key), inner) for key, inner in value.items())
        elif value and isinstance(value, list):
            pending.extend(((*path, index), inner) for index, inner in enumerate(value))
        else:
            kind = _kind(value)
            leaves[path] = (kind, None if kind in ("object", "array") else value)
    return leaves
