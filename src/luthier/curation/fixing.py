"""A version of a dataset becomes a better one: problems are found again, and mended.

Nothing is changed in place. What each rule did to which rows is part of the new version.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.curation.characters import unusual_in
from luthier.curation.checking import Checked, Options, check_rows
from luthier.curation.looking import NO_WORDS, VersionSource
from luthier.curation.privacy import mask
from luthier.curation.problems import Problem
from luthier.data import LABEL_FIELDS
from luthier.errors import ConfigError
from luthier.runs import Datasets, KeptRow, NewRow, Origin, Version

MAX_IDS = 1000
"""Rows that a version names as touched by a rule; all are counted."""
LINE_ENDS = re.compile("\r\n?")


@dataclass(frozen=True, slots=True)
class Fixed:
    """What came of mending."""

    version: Version
    is_new: bool
    touched: Mapping[str, int]
    """Problem -> rows that its rule changed or left out."""
    spared: Mapping[str, int]
    """Problem -> test rows that have it, and stay: they are what models are judged by."""


@dataclass
class _Plan:
    """What is to be done with which rows."""

    region: str | None
    usual: Mapping[str, str]
    """Label -> its more frequent spelling."""
    dropped: dict[int, str] = field(default_factory=dict)
    """Position -> problem."""
    changed: dict[int, list[str]] = field(default_factory=dict)
    suggested: Mapping[int, str] = field(default_factory=dict)
    """Position -> the label that it is to have."""
    spared: Counter[str] = field(default_factory=Counter)
    """Problem -> test rows that have it."""


def fix_version(
    datasets: Datasets,
    version: Version,
    names: Sequence[str],
    options: Options = Options(),  # noqa: B008 - frozen
    observe: Callable[[int], None] = lambda number: None,
) -> Fixed:
    """Mend the problems with these names, and keep the result as the newest version.

    Raises ConfigError for a problem that is not there, or that only a person can mend.
    """
    content = datasets.content(version)
    checked = check_rows(VersionSource(content, version.reference), options, observe)
    held_out = {row.position - 1 for row in content.rows() if row.split == "test"}
    plan = _plan(_chosen(checked, names, version), checked, options, held_out)
    touched: dict[str, list[str]] = {name: [] for name in names}
    counts = dict.fromkeys(names, 0)

    def note(reason: str, kept: KeptRow) -> None:
        counts[reason] += 1
        if len(touched[reason]) < MAX_IDS:
            touched[reason].append(kept.id)

    def rows() -> Iterator[NewRow]:
        for kept in content.rows():
            position = kept.position - 1
            if position in plan.dropped:
                note(plan.dropped[position], kept)
                continue
            fields = kept.fields
            for reason in plan.changed.get(position, ()):
                changed = RULES[reason](fields, plan, position)
                if changed != fields:
                    note(reason, kept)
                fields = changed
            yield NewRow(fields, kept.split, kept.origin)

    # The rows are gone through before the record is written, so it holds all that was touched.
    details: dict[str, Any] = {"rules": names, "rows": counts, "ids": touched}
    new, is_new = datasets.add(version.name, rows(), Origin("fix", version.reference, details))
    return Fixed(new, is_new, counts, plan.spared)


def _chosen(checked: Checked, names: Sequence[str], version: Version) -> list[Problem]:
    mendable = {p.name: p for p in checked.problems if p.fix}
    for name in names:
        if name not in mendable:
            is_there = any(p.name == name for p in checked.problems)
            raise ConfigError(
                f"{name} {'is for a person to mend' if is_there else 'was not found'}",
                where=version.reference,
                accepted=", ".join(mendable) or "nothing: no rule can mend anything here",
            )
    return [mendable[name] for name in names]


def _plan(
    problems: Sequence[Problem], checked: Checked, options: Options, held_out: set[int]
) -> _Plan:
    """Test rows are judged by: none is left out, and none gets a label that a rule guessed."""
    plan = _Plan(options.region, checked.usual, suggested=checked.suggested)
    order = [*RULES]
    for problem in sorted(problems, key=lambda p: order.index(p.name) if p.name in order else 0):
        for position in problem.positions.tolist():
            is_guess = problem.fix == "drop" or RULES[problem.name] is _relabelled
            if position in held_out and is_guess:
                plan.spared[problem.name] += 1
                continue
            if problem.fix == "drop":
                plan.dropped.setdefault(position, problem.name)
            else:
                plan.changed.setdefault(position, []).append(problem.name)
    return plan


def _without_secrets(fields: dict[str, Any], plan: _Plan, position: int) -> dict[str, Any]:
    return _with_texts(fields, lambda text: mask(text, plan.region, "secrets"))


def _without_persons(fields: dict[str, Any], plan: _Plan, position: int) -> dict[str, Any]:
    return _with_texts(fields, lambda text: mask(text, plan.region, "personal"))


def _normalised(fields: dict[str, Any], plan: _Plan, position: int) -> dict[str, Any]:
    return _with_texts(fields, _plain)


def _plain(text: str) -> str:
    """Without unusual characters, but for those that stand for others: decoding mends them."""
    from ftfy import fix_encoding

    lines = LINE_ENDS.sub("\n", text)
    return lines if fix_encoding(lines) != lines else unusual_in(lines).sub("", lines)


def _decoded(fields: dict[str, Any], plan: _Plan, position: int) -> dict[str, Any]:
    from ftfy import fix_encoding

    return _with_texts(fields, fix_encoding)


def _relabelled(fields: dict[str, Any], plan: _Plan, position: int) -> dict[str, Any]:
    label = plan.suggested[position]
    return _with_labels(fields, lambda old: label)


def _respelled(fields: dict[str, Any], plan: _Plan, position: int) -> dict[str, Any]:
    return _with_labels(fields, lambda old: plan.usual.get(str(old), old))


def _with_labels(fields: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    name = next(name for name in LABEL_FIELDS if name in fields)
    old = fields[name]
    return {**fields, name: [change(o) for o in old] if isinstance(old, list) else change(old)}


def _with_texts(fields: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The fields with all texts in them changed; names of fields stay."""
    return {name: value if name in NO_WORDS else _changed(value, change)
            for name, value in fields.items()}  # fmt: skip


def _changed_text(text: str, change: Callable[[str], str]) -> str:
    """A text that is JSON stays JSON: what is in it is changed, numbers as texts."""
    new = change(text)
    if new == text or text.lstrip()[:1] not in ("{", "["):
        return new
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return new
    return json.dumps(_changed(found, change), ensure_ascii=False)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return _changed_text(value, change)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return _with_texts(value, change)
    if isinstance(value, int) and not isinstance(value, bool):
        # A card's number may stand there as one.
        said = change(str(value))
        return value if said == str(value) else said
    return value


RULES: dict[str, Callable[[dict[str, Any], _Plan, int], dict[str, Any]]] = {
    "secrets": _without_secrets,
    "personal-data": _without_persons,
    "mojibake": _decoded,
    "unusual-characters": _normalised,
    "doubtful-labels": _relabelled,
    "label-spellings": _respelled,
}
"""Problem -> what changes a row that has it, in the order in which they are applied; rows of other
problems are left out."""
