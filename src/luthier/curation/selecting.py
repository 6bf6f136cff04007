"""Rows of versions become a smaller, a mixed or a better ordered version.

Expressions are Jinja's, in its sandbox: `label == "spam" and question | length < 500`. They see the
fields of a row, and what checks see of it: question, answer, split, origin. Which rows are kept of
many is decided by their hashes: the same ones, whatever else is there.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Spool, answer_of, question_of
from luthier.data import Place, Row, example_of
from luthier.errors import ConfigError
from luthier.runs import Content, Datasets, KeptRow, NewRow, Origin, Version

MOST_CLUSTERS = 200
OF_CLUSTER = 4
"""Rows that are wanted of a cluster, or more."""
FEATURES = 2**16
BATCH = 4096
SEED = 0
HELD_OUT = ("validation", "test")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows, how many and in which order. Rows of other splits stay as they are."""

    where: str = ""
    """Expression that is true of rows to be kept; all, where there is none."""
    limit: int | None = None
    sample: str = "random"
    """Which of more than the limit: random, or diverse, as many of every kind of text."""
    order: str = ""
    """Expression by whose value rows are put in order, the smallest first: a curriculum."""
    split: str = ""

    def __post_init__(self) -> None:
        if self.sample not in ("random", "diverse"):
            raise ConfigError(f"is {self.sample!r}", where="sample", accepted="random or diverse")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"is {self.limit}", where="limit", accepted="1 or more")
        for where, text in (("where", self.where), ("order", self.order)):
            expression(text, where)


@dataclass(frozen=True, slots=True)
class Part:
    """A version in a mixture."""

    version: Version
    weight: float | None = None
    """Of its rows beside the others'; None for as many rows as it has."""


def select_version(
    datasets: Datasets, version: Version, selection: Selection, name: str = ""
) -> tuple[Version, bool]:
    """Keep what is selected as the newest version of a name, and whether it is new.

    Raises ConfigError for an expression that fails on a row, or where nothing is left.
    """
    content = datasets.content(version)
    chosen = _ordered(content, _limited(content, _true(content, selection), selection), selection)
    if not chosen:
        raise ConfigError("no row is left", where=version.reference, advice="widen the selection")
    details = {
        key: value
        for key in ("where", "limit", "sample", "order", "split")
        if (value := getattr(selection, key)) not in ("", None)
    }
    origin = Origin("select", version.reference, details)
    with Shelf() as shelf:
        rows = _in_place(content, chosen, selection, shelf)
        return datasets.add(name or version.name, rows, origin)


def mix_versions(
    datasets: Datasets,
    name: str,
    parts: Sequence[Part],
    *,
    size: int | None = None,
    temperature: float = 1.0,
) -> tuple[Version, bool]:
    """Keep a mixture of versions as the newest version of a name, and whether it is new.

    Of each part as many training rows are taken as its weight asks for: without a weight the number
    of its rows, to the power of 1 / temperature, which brings small parts up (Conneau et al. 2020).
    A part that is too small is repeated. Held-out rows are all kept, once.

    Raises ConfigError for weights, a size or a temperature that cannot be.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ConfigError(f"is {temperature}", where="temperature", accepted="above 0")
    if size is not None and size < 1:
        raise ConfigError(f"is {size}", where="size", accepted="1 or more")
    if any(p.weight is not None and not 0 < p.weight < math.inf for p in parts):
        raise ConfigError("is not positive", where="weight", accepted="NAME@VERSION=WEIGHT above 0")
    contents = [datasets.content(part.version) for part in parts]
    learnt = [_positions_learnt(content) for content in contents]
    for part, own in zip(parts, learnt, strict=True):
        if not own:
            raise ConfigError("has no row to learn from", where=part.version.reference)
    weights = np.array(
        [len(own) ** (1 / temperature) if part.weight is None else part.weight
         for part, own in zip(parts, learnt, strict=True)]
    )  # fmt: skip
    wanted = size or sum(map(len, learnt))
    counts = _shared_out(wanted, weights)
    named = [part.version.reference for part in parts]
    details = {
        "parts": dict(zip(named, counts, strict=True)), "temperature": temperature, "size": wanted,
    }  # fmt: skip

    taken = [list(_taken(own, count)) for own, count in zip(learnt, counts, strict=True)]
    order = sorted(
        (_hash(f"{part}\0{turn}\0{position}"), part, position)
        for part, own in enumerate(taken) for turn, position in own
    )  # fmt: skip

    def rows(shelf: Shelf) -> Iterator[NewRow]:
        for part, content in enumerate(contents):
            shelf.put(part, _at(content, [position for _, position in taken[part]]))
            held = (row for row in content.rows() if row.split in HELD_OUT)
            yield from map(_as_it_is, held)
        for _, part, position in order:
            yield shelf.take(part, position)

    with Shelf() as shelf:
        return datasets.add(name, rows(shelf), Origin("mix", named[0], details))


def _positions_learnt(content: Content) -> list[int]:
    return [row.position - 1 for row in content.rows() if row.split not in HELD_OUT]


def _taken(own: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """Positions, each with how often it was taken before."""
    ranked = sorted(own, key=lambda position: (_hash(f"take\0{position}"), position))
    for number in range(count):
        yield number // len(ranked), ranked[number % len(ranked)]


def _shared_out(total: int, weights: npt.NDArray[np.float64]) -> list[int]:
    """Whole numbers in the ratio of weights that add up to the total (largest remainders)."""
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def rows_where(content: Content, where: str) -> Iterator[KeptRow]:
    """Rows of which an expression is true. Raises ConfigError."""
    ask = expression(where, "where")
    return (row for row in content.rows() if ask(row))


def _true(content: Content, selection: Selection) -> list[int]:
    """Positions of rows of the split of which the expression is true."""
    rows = (row for row in content.rows() if selection.split in ("", row.split))
    if not selection.where:
        return [row.position - 1 for row in rows]
    ask = expression(selection.where, "where")
    return [row.position - 1 for row in rows if ask(row)]


def _limited(content: Content, positions: list[int], selection: Selection) -> list[int]:
    if selection.limit is None or len(positions) <= selection.limit:
        return positions
    if selection.sample == "diverse":
        return _diverse(content, positions, selection.limit)
    ids = {row.position - 1: row.id for row in _at(content, positions)}
    ranked = sorted(positions, key=lambda p: (_hash(f"limit\0{ids[p]}"), p))
    return sorted(ranked[: selection.limit])


def _diverse(content: Content, positions: list[int], limit: int) -> list[int]:
    """As many rows of each cluster of texts, those nearest to its middle first.

    Texts are hashed words and letters, which need no model.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    texts = ["\n".join(_asked_and_answered(row)) for row in _at(content, positions)]
    counts = HashingVectorizer(n_features=FEATURES, ngram_range=(1, 2)).fit_transform(texts)
    size = max(2, min(64, counts.shape[0] - 1))
    vectors = normalize(TruncatedSVD(size, random_state=SEED).fit_transform(counts))
    number = max(2, min(MOST_CLUSTERS, limit // OF_CLUSTER))
    clusters = MiniBatchKMeans(number, random_state=SEED, n_init=3, batch_size=BATCH)
    labels = clusters.fit_predict(vectors)
    distances = np.linalg.norm(vectors - clusters.cluster_centers_[labels], axis=1)
    order = np.lexsort((distances, labels))
    starts = np.searchsorted(labels[order], labels[order])
    # One of each cluster, then another of each, until there are enough.
    turns = np.argsort(np.arange(len(order)) - starts, kind="stable")
    return sorted(positions[i] for i in order[turns][:limit])


def _ordered(content: Content, positions: list[int], selection: Selection) -> list[int]:
    if not selection.order:
        return positions
    ask = expression(selection.order, "order")
    values = {row.position - 1: ask(row) for row in _at(content, positions)}
    try:
        return sorted(positions, key=values.__getitem__)
    except TypeError as error:
        raise ConfigError(f"cannot be put in order: {error}", where="order") from None


class Shelf:
    """Rows that are taken in any order, kept in a file."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._numbers: dict[tuple[int, int], int] = {}

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *raised: object) -> None:
        self._spool.close()

    def put(self, part: int, rows: Iterable[KeptRow]) -> None:
        """Keep rows of a part."""
        waiting = iter(rows)
        while some := list(islice(waiting, BATCH)):
            for row in some:
                self._numbers[part, row.position - 1] = len(self._numbers)
            self._spool.add([json.dumps([row.fields, row.split, row.origin]) for row in some])

    def take(self, part: int, position: int) -> NewRow:
        """The row of a part at a position from 0."""
        return NewRow(*json.loads(self._spool.text(self._numbers[part, position])))


def _in_place(
    content: Content, chosen: list[int], selection: Selection, shelf: Shelf
) -> Iterator[NewRow]:
    """Rows of other splits where they are, and the chosen ones, in their order, between them."""
    waiting, places = iter(chosen), set(chosen)
    if selection.order:
        shelf.put(0, _at(content, chosen))
    for row in content.rows():
        if row.position - 1 in places:
            yield shelf.take(0, next(waiting)) if selection.order else _as_it_is(row)
        elif selection.split not in ("", row.split):
            yield _as_it_is(row)


def _as_it_is(row: KeptRow) -> NewRow:
    return NewRow(row.fields, row.split, row.origin)


def _at(content: Content, positions: Sequence[int]) -> Iterator[KeptRow]:
    """Rows at these positions, from the first to the last."""
    wanted = set(positions)
    return (row for row in content.rows() if row.position - 1 in wanted)


def _asked_and_answered(row: KeptRow) -> tuple[str, str]:
    example = example_of(Row(Place(row.origin, row.position), row.fields))
    return ("", "") if example is None else (question_of(example), answer_of(example.target))


def expression(text: str, where: str) -> Callable[[KeptRow], Any]:
    """What an expression says of a row. Raises ConfigError when it is none."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined)
    try:
        compiled = environment.compile_expression(text or "true", undefined_to_none=False)
    except TemplateError as error:
        raise ConfigError(f"is no expression: {error}", where=where) from None

    def ask(row: KeptRow) -> Any:
        question, answer = _asked_and_answered(row)
        known = {"question": question, "answer": answer, "split": row.split, "origin": row.origin}
        try:
            found = compiled(**{**known, **row.fields})
            # What is missing is told when it is looked at.
            return found if found is None or isinstance(found, str | int | float) else bool(found)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            fields = ", ".join([*row.fields, *known])
            raise ConfigError(f"{where} fails: {error}", where=row.origin,
                              accepted=f"the fields {fields}") from None  # fmt: skip

    return ask


def _hash(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()
