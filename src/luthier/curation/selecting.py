"""Rows of versions become a smaller, a mixed or a better ordered version.

Expressions are Jinja's, in its sandbox: `label == "spam" and question | length < 500`. They see the
fields of a row, and what checks see of it: question, answer, split, origin; with a run, how it was
learnt: loss, confidence, variability, learning. Which rows are kept of many is decided by their
hashes: the same ones, whatever else is there.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from luthier.curation.cartography import Learnt
from luthier.curation.looking import Growing, Spool, answer_of, question_of
from luthier.curation.meaning import unit_vectors
from luthier.data import Example, Place, Row, Split, example_key, example_of, prompt_key
from luthier.errors import ConfigError
from luthier.evaluation import Embed
from luthier.runs import Content, Datasets, KeptRow, NewRow, Origin, Version

MOST_CLUSTERS = 200
OF_CLUSTER = 4
"""Rows that are wanted of a cluster, or more."""
FEATURES = 2**16
BATCH = 4096
SEED = 0
Positions = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
HELD_OUT = ("validation", "test")
MEASURED = ("loss", "confidence", "variability")
"""What a run measured of its rows; nothing of others."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows, how many and in which order. Rows of other splits stay as they are."""

    where: str = ""
    """Expression that is true of rows to be kept; all, where there is none."""
    limit: int | None = None
    sample: str = "random"
    """Which of more than the limit: random, or diverse, as many of every kind of text. Of rows in
    an order those that come first, unless diverse ones are wanted."""
    order: str = ""
    """Expression by whose value rows are put in order, the smallest first: a curriculum."""
    split: str = ""
    run: str = ""
    """Id of the run that `learnt` is of."""
    learnt: Mapping[str, Learnt] | None = None
    """How a run learnt its rows, by their keys."""
    embedder: str = ""
    """A model of texts, by whose vectors diverse rows are told apart; see `embed`."""
    embed: Embed | None = None

    def __post_init__(self) -> None:
        if self.sample not in ("random", "diverse"):
            raise ConfigError(f"is {self.sample!r}", where="sample", accepted="random or diverse")
        if self.embedder and (self.sample != "diverse" or self.limit is None):
            advice = "give sample=diverse and limit=... too, or leave it out"
            raise ConfigError("tells diverse rows apart", where="embedder", advice=advice)
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"is {self.limit}", where="limit", accepted="1 or more")
        if self.split not in ("", *get_args(Split)):
            accepted = ", ".join(get_args(Split))
            raise ConfigError(f"is {self.split!r}", where="split", accepted=accepted)
        for where, text in (("where", self.where), ("order", self.order)):
            Expression(text or "true", where)


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
    if not len(chosen):
        raise ConfigError("no row is left", where=version.reference, advice="widen the selection")
    details = {
        key: value
        for key in ("where", "limit", "sample", "order", "split", "run", "embedder")
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
    mixture = _Mixture([datasets.content(part.version) for part in parts])
    for part, own in zip(parts, mixture.learnt, strict=True):
        if not len(own):
            raise ConfigError("has no row to learn from", where=part.version.reference)
    weights = np.array(
        [len(own) ** (1 / temperature) if part.weight is None else part.weight
         for part, own in zip(parts, mixture.learnt, strict=True)]
    )  # fmt: skip
    wanted = size or sum(map(len, mixture.learnt))
    counts = _shared_out(wanted, weights)
    named = [part.version.reference for part in parts]
    taken = Counter[str]()
    for reference, count in zip(named, counts, strict=True):
        taken[reference] += count
    details = {
        "parts": dict(taken), "temperature": temperature, "size": wanted,
        "left out": mixture.num_left_out,
    }  # fmt: skip
    with Shelf() as shelf:
        rows = mixture.rows(counts, shelf)
        return datasets.add(name, rows, Origin("mix", named[0], details))


class _Mixture:
    """Versions to be mixed: what of them is learnt from, and what is held out."""

    def __init__(self, contents: Sequence[Content]) -> None:
        self._contents = contents
        # What one version tests, another must not teach; what is tested is so once.
        self._tested, self._held = (
            np.unique(_hashes(map(_asked, self._of(splits)))) for splits in (("test",), HELD_OUT)
        )
        self.num_left_out = 0
        self.learnt = [self._positions(content) for content in contents]
        """Positions of each version's rows to learn from, those that are taken first first."""

    def _of(self, splits: Sequence[str]) -> Iterator[KeptRow]:
        return (row for content in self._contents for row in content.rows() if row.split in splits)

    def _positions(self, content: Content) -> Positions:
        found = Growing(np.int64)
        for row in content.rows():
            if row.split in HELD_OUT:
                continue
            if _is_in(self._held, _asked(row)):
                self.num_left_out += 1
            else:
                found.extend([row.position - 1])
        ranks = _hashes((f"take\0{position}" for position in found.array), len(found))
        order: Positions = found.array[np.argsort(ranks, kind="stable")]
        return order

    def rows(self, counts: Sequence[int], shelf: "Shelf") -> Iterator[NewRow]:
        """Held-out rows, each once, and so many of each version to learn from."""
        yield from self._held_out()
        chosen = np.empty(sum(counts), dtype=[("rank", "<u8"), ("part", "<i4"), ("at", "<i8")])
        end = 0
        for part, (own, count) in enumerate(zip(self.learnt, counts, strict=True)):
            start, end = end, end + count
            taken = np.resize(own, count)
            turns = np.arange(count) // len(own)
            names = (f"{part}\0{turn}\0{at}" for turn, at in zip(turns, taken, strict=True))
            chosen["rank"][start:end] = _hashes(names, count)
            chosen["part"][start:end], chosen["at"][start:end] = part, taken
            shelf.put(part, _at(self._contents[part], taken))
        for number in np.argsort(chosen["rank"], kind="stable"):
            yield shelf.take(int(chosen["part"][number]), int(chosen["at"][number]))

    def _held_out(self) -> Iterator[NewRow]:
        known = set[str]()
        for row in self._of(HELD_OUT):
            is_tested_too = row.split == "validation" and _is_in(self._tested, _asked(row))
            if row.id not in known and not is_tested_too:
                known.add(row.id)
                yield _as_it_is(row)


def _asked(row: KeptRow) -> str:
    """What two rows that ask the same have in common."""
    example = _example(row)
    return row.id if example is None else prompt_key(example) or row.id


def _is_in(hashes: Hashes, text: str) -> bool:
    place = int(np.searchsorted(hashes, wanted := np.uint64(_hash(text))))
    return place < len(hashes) and hashes[place] == wanted


def _shared_out(total: int, weights: npt.NDArray[np.float64]) -> list[int]:
    """Whole numbers in the ratio of weights that add up to the total (largest remainders)."""
    exact = total * weights / weights.sum()
    counts = np.floor(exact).astype(int)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def rows_where(content: Content, where: str) -> Iterator[KeptRow]:
    """Rows of which an expression is true. Raises ConfigError."""
    asked = Expression(where, "where")
    yield from (row for row in content.rows() if asked.of(row, content.split_of(row)))
    asked.check()


def _true(content: Content, selection: Selection) -> Positions:
    """Positions of rows of the split of which the expression is true."""
    asked = Expression(selection.where or "true", "where", selection.learnt)
    found = Growing(np.int64)
    for row in content.rows():
        if selection.split in ("", content.split_of(row)) and asked.of(row, content.split_of(row)):
            found.extend([row.position - 1])
    asked.check()
    positions: Positions = found.array
    return positions


def _limited(content: Content, positions: Positions, selection: Selection) -> Positions:
    is_ordered = bool(selection.order) and selection.sample == "random"
    if selection.limit is None or len(positions) <= selection.limit or is_ordered:
        return positions  # of ordered rows the first are taken
    if selection.sample == "diverse":
        return _diverse(content, positions, selection)
    ranks = _hashes((f"limit\0{row.id}" for row in _at(content, positions)), len(positions))
    return np.sort(positions[np.argsort(ranks, kind="stable")[: selection.limit]])


def _diverse(content: Content, positions: Positions, selection: Selection) -> Positions:
    """As many rows of each cluster of texts, those nearest to its middle first."""
    from sklearn.cluster import MiniBatchKMeans

    limit = selection.limit or len(positions)
    texts = ["\n".join(_said(_example(row)).values()) for row in _at(content, positions)]
    if selection.embed is None:
        vectors = _of_words(texts)
    else:
        parts = (texts[i : i + BATCH] for i in range(0, len(texts), BATCH))
        vectors = np.concatenate([unit_vectors(selection.embed, part) for part in parts])
    number = max(2, min(MOST_CLUSTERS, limit // OF_CLUSTER))
    clusters = MiniBatchKMeans(number, random_state=SEED, n_init=3, batch_size=BATCH)
    labels = clusters.fit_predict(vectors)
    distances = np.linalg.norm(vectors - clusters.cluster_centers_[labels], axis=1)
    order = np.lexsort((distances, labels))
    starts = np.searchsorted(labels[order], labels[order])
    # One of each cluster, then another of each, until there are enough.
    turns = np.argsort(np.arange(len(order)) - starts, kind="stable")
    return np.sort(positions[order[turns][:limit]])


def _of_words(texts: Sequence[str]) -> npt.NDArray[Any]:
    """Vectors of hashed words and pairs of words, which need no model."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    counts = HashingVectorizer(n_features=FEATURES, ngram_range=(1, 2)).fit_transform(texts)
    size = max(2, min(64, counts.shape[0] - 1))
    vectors: npt.NDArray[Any] = normalize(
        TruncatedSVD(size, random_state=SEED).fit_transform(counts)
    )
    return vectors


def _ordered(content: Content, positions: Positions, selection: Selection) -> Positions:
    """By the value of an expression, what has none last."""
    if not selection.order:
        return positions
    asked = Expression(selection.order, "order", selection.learnt)
    values = [asked.of(row, content.split_of(row)) for row in _at(content, positions)]
    asked.check()
    try:
        order = sorted(range(len(values)), key=lambda i: (values[i] is None, values[i]))
    except TypeError as error:
        raise ConfigError(f"cannot be put in order: {error}", where="order") from None
    return positions[order][: selection.limit]


class Shelf:
    """Rows that are taken in any order, kept in a file."""

    def __init__(self) -> None:
        self._spool = Spool()
        self._first: dict[int, int] = {}
        self._positions: dict[int, Growing] = {}

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *raised: object) -> None:
        self._spool.close()

    def put(self, part: int, rows: Iterable[KeptRow]) -> None:
        """Keep rows of a part, which come in order."""
        waiting = iter(rows)
        self._first[part], positions = len(self._spool), Growing(np.int64)
        self._positions[part] = positions
        while some := list(islice(waiting, BATCH)):
            positions.extend([row.position - 1 for row in some])
            self._spool.add([json.dumps([row.fields, row.split, row.origin]) for row in some])

    def take(self, part: int, position: int) -> NewRow:
        """The row of a part at a position from 0."""
        number = self._first[part] + int(np.searchsorted(self._positions[part].array, position))
        return NewRow(*json.loads(self._spool.text(number)))


def _in_place(
    content: Content, chosen: Positions, selection: Selection, shelf: Shelf
) -> Iterator[NewRow]:
    """Rows of other splits where they are, and the chosen ones, in their order, between them."""
    waiting, is_chosen = iter(chosen.tolist()), _mask(content, chosen)
    if selection.order:
        shelf.put(0, _at(content, chosen))
    for row in content.rows():
        if is_chosen[row.position - 1]:
            yield shelf.take(0, next(waiting)) if selection.order else _as_it_is(row)
        elif selection.split not in ("", content.split_of(row)):
            yield _as_it_is(row)


def _as_it_is(row: KeptRow) -> NewRow:
    return NewRow(row.fields, row.split, row.origin)


def _at(content: Content, positions: Positions) -> Iterator[KeptRow]:
    """Rows at these positions, from the first to the last, each once."""
    is_wanted = _mask(content, positions)
    return (row for row in content.rows() if is_wanted[row.position - 1])


def _mask(content: Content, positions: Positions) -> npt.NDArray[np.bool_]:
    found = np.zeros(content.summary.num_rows, dtype=bool)
    found[positions] = True
    return found


def _example(row: KeptRow) -> Example | None:
    return example_of(Row(Place(row.origin, row.position), row.fields))


def _said(example: Example | None) -> dict[str, Any]:
    if example is None:
        return {"question": "", "answer": ""}
    return {"question": question_of(example), "answer": answer_of(example.target)}


def _how_learnt(example: Example | None, learnt: Mapping[str, Learnt]) -> dict[str, Any]:
    """What a run knows of a row; of one that it did not learn from, that it is unseen."""
    found = learnt.get(example_key(example)) if example else None
    if found is None:
        return {"learning": "unseen", **dict.fromkeys(MEASURED)}
    return {"learning": found.learning, **{name: getattr(found, name) for name in MEASURED}}


class Expression:
    """What an expression says of rows. A name that a row lacks is not defined there."""

    def __init__(self, text: str, where: str, learnt: Mapping[str, Learnt] | None = None) -> None:
        """Raises ConfigError when the text is no expression."""
        from jinja2 import TemplateError, meta
        from jinja2.exceptions import SecurityError
        from jinja2.sandbox import SandboxedEnvironment

        class Guarded(SandboxedEnvironment):
            """What the sandbox refuses is an error at once, not something undefined."""

            def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
                raise SecurityError(f"{attribute} is not for expressions")

        environment = Guarded()
        self._text, self._where, self._learnt = text, where, learnt
        try:
            self._compiled = environment.compile_expression(text, undefined_to_none=False)
            names = meta.find_undeclared_variables(environment.parse(f"{{{{ {text} }}}}"))
        except TemplateError as error:
            raise ConfigError(f"is no expression: {error}", where=where) from None
        self._unseen = names - environment.globals.keys()
        self._fields: dict[str, None] = {}

    def of(self, row: KeptRow, split: Split | None) -> Any:
        """Its value for a row that counts to a split. Raises ConfigError where it fails."""
        from jinja2 import TemplateError, Undefined

        example = _example(row)
        known = {"split": split, "origin": row.origin, **_said(example)}
        if self._learnt is not None:
            known |= _how_learnt(example, self._learnt)
        known |= row.fields
        self._unseen -= known.keys()
        if self._unseen:
            self._fields |= dict.fromkeys(known)
        try:
            found = self._compiled(**known)
            if isinstance(found, Undefined):
                return None
            return found if _can_be_ordered(found) else bool(found)
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(f"{self._where} fails: {error}", where=row.origin,
                              accepted=f"the fields {', '.join(known)}") from None  # fmt: skip

    def check(self) -> None:
        """Raise ConfigError where a name stood in none of the rows that were asked."""
        if self._unseen and self._fields:
            raise ConfigError(
                f"{self._where} fails: no row has {min(self._unseen)}", where=self._text,
                accepted=f"the fields {', '.join(self._fields)}",
            )  # fmt: skip


def _can_be_ordered(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_can_be_ordered, value))
    return value is None or isinstance(value, str | int | float)


def _hashes(texts: Iterable[str], number: int = -1) -> Hashes:
    return np.fromiter(map(_hash, texts), np.uint64, number)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
