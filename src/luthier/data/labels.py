"""The labels of a dataset: which there are, of which kind, and what is wrong with them as a whole.

The set of labels is read from the training rows and nowhere else: a label that only held-out rows
have can never be predicted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from luthier.data.examples import Example, Finding, Labelled
from luthier.errors import DataError

LabelKind = Literal["single", "multi", "number"]
"""One label of a set, any number of them, or a number."""

FEW_ROWS = 4
"""Rows of a class below which little can be learnt or said about it."""
MAX_CLASSES_SHARE = 0.5
"""Distinct labels a training row from which labels are no classes, but texts of their own."""
MAX_NAMED = 10
"""Labels named one by one in a finding about many."""
MOST_INTEGERS = 20
"""Different whole numbers up to which they are taken for classes."""


@dataclass(frozen=True, slots=True)
class LabelSet:
    """What a classifier may answer."""

    kind: LabelKind
    names: tuple[str, ...]
    """The labels in a fixed order; empty for numbers."""
    counts: tuple[int, ...]
    """Training rows with each label."""

    @property
    def num_labels(self) -> int:
        """Labels of the set; 0 for numbers."""
        return len(self.names)


def label_kind(examples: Sequence[Labelled]) -> LabelKind:
    """How rows write what they are: lists, numbers (unless just a few whole ones), or one label."""
    if any(example.form == "list" for example in examples):
        return "multi"
    if examples and all(example.form == "number" for example in examples):
        values = {float(example.labels[0]) for example in examples}
        if len(values) > MOST_INTEGERS or any(not value.is_integer() for value in values):
            return "number"
    return "single"


def read_label_set(examples: Sequence[Labelled], kind: LabelKind) -> LabelSet:
    """The labels of the training rows, in alphabetical order, numbers by size.

    Raises DataError when there is nothing to tell apart, or labels are no numbers but should be.
    """
    if kind == "number":
        _check_numbers(examples)
        return LabelSet("number", (), ())
    if kind == "single" and (several := [e for e in examples if len(e.labels) != 1]):
        raise DataError(
            f"has {len(several[0].labels)} labels",
            where=str(several[0].place),
            accepted="one label a row with method.labels: single",
            advice="set method.labels to multi",
        )
    counts = Counter(label for example in examples for label in example.labels)
    if not counts or (kind == "single" and len(counts) == 1):
        only = next(iter(counts), "none")
        raise DataError(
            f"all {len(examples)} training rows have the label {only!r}",
            where=str(examples[0].place) if examples else "",
            accepted="two labels or more",
            advice="add rows of another label",
        )
    if kind == "single":
        _check_classes(examples, len(counts))
    names = tuple(sorted(counts, key=_by_size))
    return LabelSet(kind, names, tuple(counts[name] for name in names))


def _by_size(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _check_classes(examples: Sequence[Labelled], distinct: int) -> None:
    """Labels that hardly come twice are no classes."""
    if distinct <= max(MOST_INTEGERS, MAX_CLASSES_SHARE * len(examples)):
        return
    advice = "name another field, or tune a search model on pairs of text and label"
    if all(as_number(example.labels[0]) is not None for example in examples):
        advice = "write numbers without quotes, or set method.labels: number"
    raise DataError(
        f"label takes {distinct:,} values in {_rows(len(examples))}",
        where=str(examples[0].place),
        accepted="labels that come again and again",
        advice=advice,
    )


def _check_numbers(examples: Sequence[Labelled]) -> None:
    for example in examples:
        if len(example.labels) != 1 or as_number(example.labels[0]) is None:
            raise DataError(
                f"has the label {', '.join(example.labels)!r}",
                where=str(example.place),
                accepted="a number in every row with method.labels: number",
                advice="correct it, or set method.labels to single",
            )


def as_number(label: str) -> float | None:
    """The number a label writes, or None."""
    try:
        number = float(label)
    except ValueError:
        return None
    return number if number - number == 0 else None  # neither NaN nor infinite


def are_grades(examples: Sequence[Example]) -> bool:
    """Whether the labels are a few whole numbers, as stars are."""
    labels = {e.labels[0] for e in examples if isinstance(e, Labelled) and e.labels}
    values = {as_number(label) for label in labels}
    are_whole = all(value is not None and value.is_integer() for value in values)
    return are_whole and 2 < len(values) <= MOST_INTEGERS


def label_findings(
    train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example]
) -> list[Finding]:
    """Everything wrong with the labels of a dataset that no single row shows."""
    learnt = _labelled(train)
    if not learnt:
        return []
    held_out = {"validation": validation, "test": test}
    findings = [
        *_mixed_forms(learnt),
        *_spellings(learnt),
        *_contradictions([*learnt, *_labelled(validation), *_labelled(test)]),
    ]
    values = {as_number(label) for example in learnt for label in example.labels}
    if label_kind(learnt) == "number":
        findings += [
            Finding(
                example.place, "no-number", "label", f"is {', '.join(example.labels)!r}",
                "a number, as training rows have",
            )
            for examples in held_out.values()
            for example in examples
            if isinstance(example, Labelled) and as_number(", ".join(example.labels)) is None
        ]  # fmt: skip
    if label_kind(learnt) == "number" or (None not in values and len(values) > MOST_INTEGERS):
        return findings  # of numbers, however they are written, none need come twice
    for split, examples in held_out.items():
        findings += _missing(learnt, _labelled(examples), split)
    return [*findings, *_rare(learnt)]


def _mixed_forms(examples: Sequence[Labelled]) -> list[Finding]:
    """Numbers in some rows and words in others; or numbers, all written as text."""
    first: dict[str, Labelled] = {}
    for example in examples:
        first.setdefault(example.form, example)
    if {"number", "text"} <= first.keys():
        number, text = first["number"], first["text"]
        return [
            Finding(
                text.place, "mixed-labels", "label", f"is the text {text.labels[0]!r}",
                f"a number as in {number.place}, or text in all rows",
                "write all labels alike",
            )
        ]  # fmt: skip
    looks_numeric = all(
        example.form == "text" and as_number(example.labels[0]) is not None for example in examples
    )
    values = {example.labels for example in examples}
    if looks_numeric and len(values) > 2:
        found = f"has the label {examples[0].labels[0]!r}, a number written as text, as all rows do"
        advice = "they are taken for classes unless method.labels is number"
        return [_warning(examples[0], "numbers-as-text", found, "numbers without quotes", advice)]
    return []


def _spellings(examples: Sequence[Labelled]) -> list[Finding]:
    """Labels that differ in nothing but case and white space."""
    spelled: dict[str, Counter[str]] = {}
    first: dict[str, Labelled] = {}
    for example in examples:
        for label in example.labels:
            spelled.setdefault(" ".join(label.casefold().split()), Counter())[label] += 1
            first.setdefault(label, example)
    findings = []
    for counts in spelled.values():
        usual, *others = [label for label, _ in counts.most_common()]
        findings += [
            Finding(
                first[label].place, "label-spelled-twice", "label",
                f"is {label!r} in {_rows(counts[label])}, and {usual!r} in {_rows(counts[usual])}",
                "one spelling of every label", f"write {usual!r} in all of them",
            )
            for label in others
        ]  # fmt: skip
    return findings


def _contradictions(examples: Sequence[Labelled]) -> list[Finding]:
    """Equal texts with different labels."""
    first: dict[tuple[str, ...], Labelled] = {}
    findings = []
    for example in examples:
        key = tuple(" ".join(text.casefold().split()) for text in example.texts)
        earlier = first.setdefault(key, example)
        if set(earlier.labels) != set(example.labels):
            found = (
                f"is labelled {', '.join(example.labels)}, and the same text in {earlier.place} "
                f"{', '.join(earlier.labels)}"
            )
            accepted = "one answer for equal texts"
            findings.append(_warning(example, "contradicting-labels", found, accepted))
    return findings


def _labelled(examples: Sequence[Example]) -> list[Labelled]:
    return [example for example in examples if isinstance(example, Labelled)]


def _missing(learnt: Sequence[Labelled], held_out: Sequence[Labelled], split: str) -> list[Finding]:
    """Labels that one side of a split has and the other has not."""
    if not held_out:
        return []
    advice = {
        "validation": "such a row is left out of validation",
        "test": "such a row counts as answered wrongly",
    }
    known, asked = _first_of_each(learnt), _first_of_each(held_out)
    found = [
        _warning(
            asked[label], "unknown-label", f"has the label {label!r}, which no training row has",
            "labels of the training rows", advice[split],
        )
        for label in asked
        if label not in known
    ]  # fmt: skip
    unseen = [label for label in known if label not in asked]
    if unseen:
        which = f"{_named(unseen)} of {len(known)} labels" if len(unseen) > 1 else repr(unseen[0])
        found.append(
            _warning(
                known[unseen[0]], "label-not-held-out", f"no {split} row has {which}",
                f"{split} rows of every label", "nothing will be known about these",
            )
        )  # fmt: skip
    return found


def _rare(examples: Sequence[Labelled]) -> list[Finding]:
    counts = Counter(label for example in examples for label in example.labels)
    first = _first_of_each(examples)
    rare = [label for label, count in counts.items() if count < FEW_ROWS]
    if not rare:
        return []
    if len(rare) == 1:
        found = f"{rare[0]!r} has {_rows(counts[rare[0]])} in training"
    else:
        found = f"{_named(rare)} of {len(counts)} labels have fewer than {FEW_ROWS} training rows"
    advice = "add rows, or join labels"
    accepted = f"{FEW_ROWS} rows or more of every label"
    return [_warning(first[rare[0]], "rare-label", found, accepted, advice)]


def _first_of_each(examples: Iterable[Labelled]) -> dict[str, Labelled]:
    first: dict[str, Labelled] = {}
    for example in examples:
        for label in example.labels:
            first.setdefault(label, example)
    return first


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:MAX_NAMED]))
    more = len(labels) - MAX_NAMED
    return f"{len(labels)} ({shown}{f' and {more} more' if more > 0 else ''})"


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _warning(example: Labelled, name: str, found: str, accepted: str, advice: str = "") -> Finding:
    finding = Finding(example.place, name, "", found, accepted, advice)
    return replace(finding, severity="warning")
