"""Rows of texts with labels, and of texts that belong together: layouts for classifiers and search.

A row becomes a `Labelled` text or a `Pair`; everything wrong with it is reported. What only the
whole dataset can tell (a label spelled two ways, a class of two rows) is found in `labels`.
"""

import contextlib
import json
import math
from typing import Any

from luthier.data.examples import LabelForm, Labelled, Pair
from luthier.data.turns import Turns, is_json, shape

TEXT_FIELDS = (("text",), ("text", "text_pair"), ("sentence1", "sentence2"),
               ("premise", "hypothesis"))  # fmt: skip
"""Names of the text, or of both texts, of a labelled row."""
LABEL_FIELDS = ("label", "labels")
PAIR_FIELDS = (("anchor", "positive"), ("query", "positive"), ("query", "passage"))
"""Names of two texts that belong together."""
SCORED_FIELDS = ("sentence1", "sentence2", "score")
NEGATIVE_FIELDS = ("negative", "negatives", *(f"negative_{i}" for i in range(1, 33)))
"""Names of texts that do not belong to a row's first."""


def read_labelled(turns: Turns, fields: dict[str, Any]) -> Labelled | None:
    """One text, or two, with a label, several, or a number."""
    # A layout with two texts is meant where both names are there.
    names = max((n for n in TEXT_FIELDS if fields.keys() >= set(n)), key=len)
    texts = [turns.text(fields[name], name) for name in names]
    field = next(name for name in LABEL_FIELDS if name in fields)
    labels, form = _labels(turns, fields[field], field)
    if turns.is_broken:
        return None
    second = texts[1] if len(texts) > 1 else None
    return Labelled(turns.id, turns.row.place, texts[0], second, labels, form, turns.slices)


def _labels(turns: Turns, value: Any, field: str) -> tuple[tuple[str, ...], LabelForm]:
    """The labels as texts, and how they were written."""
    accepted = "a label (text), a list of labels, or a number"
    if isinstance(value, str) and value.lstrip().startswith("[") and is_json(value):
        value = json.loads(value)  # a cell of a CSV
    if isinstance(value, list):
        found = [_label(turns, item, f"{field}[{i}]", accepted) for i, item in enumerate(value)]
        return tuple(dict.fromkeys(found)), "list"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (_label(turns, value, field, accepted),), "number" if is_number else "text"


def _label(turns: Turns, value: Any, field: str, accepted: str) -> str:
    if value is None:
        turns.wrong("null-label", field, "is null", accepted)
    elif isinstance(value, float) and not math.isfinite(value):
        turns.wrong("nan-content", field, "is not a number (NaN)", accepted)
    elif isinstance(value, bool):
        return "true" if value else "false"
    elif isinstance(value, int | float):
        # 3 and 3.0 are one number, as which JSON and spreadsheets write it.
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    elif not isinstance(value, str):
        turns.wrong("wrong-type", field, f"is {shape(value)}", accepted)
    elif not value.strip():
        turns.wrong("empty-label", field, "is empty", accepted, "fill it in or remove the row")
    else:
        return value
    return ""


def read_pair(turns: Turns, fields: dict[str, Any]) -> Pair | None:
    """Two texts that belong together, with texts that do not belong to the first, if there are."""
    first, second = next(n for n in PAIR_FIELDS if fields.keys() >= set(n))
    anchor, positive = turns.text(fields[first], first), turns.text(fields[second], second)
    negatives = tuple(
        text
        for name in NEGATIVE_FIELDS
        if fields.get(name) not in (None, "")
        for text in _negatives(turns, fields[name], name)
    )
    for text in (positive, *negatives):
        if not turns.is_broken and text == anchor:
            turns.wrong("equal-texts", second, f"is the same as {first}", "a text of its own")
    if positive in negatives and not turns.is_broken:
        turns.wrong(
            "equal-texts", "negative", f"is the same as {second}",
            f"texts that do not belong to {first}",
        )  # fmt: skip
    if turns.is_broken:
        return None
    return Pair(turns.id, turns.row.place, anchor, positive, negatives, None, turns.slices)


def _negatives(turns: Turns, value: Any, name: str) -> list[str]:
    if isinstance(value, str) and value.lstrip().startswith("[") and is_json(value):
        value = json.loads(value)
    if isinstance(value, list):
        return [turns.text(item, f"{name}[{i}]") for i, item in enumerate(value)]
    return [turns.text(value, name)]


def read_scored_pair(turns: Turns, fields: dict[str, Any]) -> Pair | None:
    """Two texts, and how alike they are."""
    first, second, scored = SCORED_FIELDS
    texts = [turns.text(fields[name], name) for name in (first, second)]
    score = _score(turns, fields[scored], scored)
    if turns.is_broken:
        return None
    return Pair(turns.id, turns.row.place, texts[0], texts[1], (), score, turns.slices)


def _score(turns: Turns, value: Any, field: str) -> float:
    if isinstance(value, str):  # a cell of a CSV
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        turns.wrong("wrong-score", field, f"is {value!r}", "a number: the higher, the more alike")
        return 0.0
    return float(value)
