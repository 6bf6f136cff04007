"""A collection to be searched: texts, questions to them, and which texts answer which question.

Files are laid out as the BEIR benchmark has them (Thakur et al. 2021): a corpus and queries with
`_id` and `text` (and `title`), and judgements with a query's id, a text's id and a grade in each
row. Without such files the held-out pairs are the collection: every positive is to be found by its
own anchor among all others.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.data.examples import Example, Finding, Pair, Place, Query, Row
from luthier.data.reading import Report, is_nan, read_rows
from luthier.errors import DataError

ID_FIELDS = ("_id", "id")
JUDGEMENT_FIELDS = (("query-id", "corpus-id", "score"), ("query_id", "corpus_id", "score"))


@dataclass(frozen=True, slots=True)
class Collection:
    """What is searched, and by whom."""

    texts: dict[str, str]
    """Name -> text."""
    queries: tuple[Query, ...]
    """Those that at least one text answers."""


def read_collection(corpus: Path, queries: Path, judgements: Path, report: Report) -> Collection:
    """Read a collection; what is wrong with single rows goes to `report`.

    Raises DataError for files that cannot be read at all, and when no query has an answer.
    """
    texts = {name: text for name, (text, _) in _read_texts(corpus, report).items()}
    asked = _read_texts(queries, report)
    grades = _read_judgements(judgements, asked.keys(), texts.keys(), report)
    found = tuple(
        Query(name, row.place, text, tuple(grades[name]), _slices(row))
        for name, (text, row) in asked.items()
        if name in grades
    )
    if not found:
        raise DataError(
            "no query has a text that answers it",
            where=str(judgements),
            accepted=f"rows of {', '.join(JUDGEMENT_FIELDS[0])} with ids of {queries} and {corpus}",
        )
    return Collection(texts, found)


def collection_of(pairs: Sequence[Example]) -> Collection:
    """The held-out pairs as a collection: each positive answers its own anchor.

    Equal anchors are one query with several answers.
    """
    texts: dict[str, str] = {}
    names: dict[str, str] = {}
    answers: dict[str, dict[str, float]] = {}
    first: dict[str, Pair] = {}
    for pair in pairs:
        if not isinstance(pair, Pair) or pair.score is not None:
            continue
        for text in pair.texts[1:]:
            names.setdefault(text, f"text {len(names) + 1}")
            texts[names[text]] = text
        first.setdefault(pair.anchor, pair)
        answers.setdefault(pair.anchor, {})[names[pair.positive]] = 1.0
    queries = tuple(
        Query(pair.id, pair.place, anchor, tuple(answers[anchor].items()), pair.slices)
        for anchor, pair in first.items()
    )
    return Collection(texts, queries)


def _read_texts(path: Path, report: Report) -> dict[str, tuple[str, Row]]:
    """Name -> text and its row."""
    found: dict[str, tuple[str, Row]] = {}
    for row in read_rows(path, report):
        name = next((str(row.fields[f]) for f in ID_FIELDS if row.fields.get(f) is not None), "")
        text = row.fields.get("text")
        if not name:
            report(Finding(row.place, "missing-field", "_id", "is missing", "a name for the text"))
        elif not isinstance(text, str) or not with_title(row, text).strip():
            said = "is missing" if text is None else f"is {text!r}"
            report(Finding(row.place, "empty-content", "text", said, "text"))
        elif name in found:
            said = f"is {name!r}, as in {found[name][1].place}"
            report(Finding(row.place, "duplicate-id", "_id", said, "a distinct id for every row"))
        else:
            found[name] = with_title(row, text), row
    if not found:
        raise DataError("holds no text", where=str(path), accepted="rows with _id and text")
    return found


def with_title(row: Row, text: str) -> str:
    """The text of a collection as it is found: its row's title, if it has one, stands before."""
    title = row.fields.get("title")
    parts = [title, text] if isinstance(title, str) else [text]
    return "\n".join(part for part in parts if part.strip())


def _slices(row: Row) -> dict[str, str]:
    return {
        key: str(value)
        for key, value in row.fields.items()
        if key not in (*ID_FIELDS, "text", "title")
        and isinstance(value, str | int | float)
        and not is_nan(value)
    }


def _read_judgements(
    path: Path, queries: Any, texts: Any, report: Report
) -> dict[str, list[tuple[str, float]]]:
    """Query -> the texts that answer it, with their grades above 0."""
    found: dict[str, list[tuple[str, float]]] = {}
    for row in _judgement_rows(path, report):
        names = next((n for n in JUDGEMENT_FIELDS if row.fields.keys() >= set(n)), None)
        if names is None:
            fields = ", ".join(row.fields)
            accepted = ", ".join(JUDGEMENT_FIELDS[0])
            report(Finding(row.place, "unknown-layout", "", f"has the fields {fields}", accepted))
            continue
        query, text, grade = (str(row.fields[name]) for name in names)
        unknown = [
            (field, name, where)
            for field, name, known, where in (
                (names[0], query, queries, "the queries"), (names[1], text, texts, "the corpus"),
            )
            if name not in known
        ]  # fmt: skip
        for field, name, where in unknown:
            said = f"is {name!r}"
            report(Finding(row.place, "unknown-id", field, said, f"an id that {where} has"))
        try:
            value = float(grade)
        except ValueError:
            report(Finding(row.place, "wrong-score", names[2], f"is {grade!r}", "a number"))
            continue
        if not unknown and value > 0:
            found.setdefault(query, []).append((text, value))
    return found


def _judgement_rows(path: Path, report: Report) -> Sequence[Row] | Any:
    """Rows of a file of tabs, or of any other kind that can be read."""
    if path.suffix.lower() != ".tsv":
        return read_rows(path, report)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error
    reader = csv.reader(lines, delimiter="\t")
    header = next(reader, [])
    return [
        Row(Place(str(path), line), dict(zip(header, cells, strict=False)))
        for line, cells in enumerate(reader, 2)
        if cells
    ]
