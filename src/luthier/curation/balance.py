"""What a dataset is made of: labels, lengths, languages, beginnings, and what groups get."""

import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from luthier.curation.looking import Growing, Seen
from luthier.curation.privacy import excerpt
from luthier.curation.problems import MAX_CASES, Case, Gathered, Kind, Problem, problem_of
from luthier.data import Labelled

UNEVEN = Kind(
    "uneven-labels", "note", "labels are uneven",
    "what is rare is learnt badly, and accuracy alone hides it: look at balanced accuracy",
)  # fmt: skip
RARE = Kind(
    "rare-labels", "warning", "{n} with labels that fewer than five rows have",
    "nobody learns a label from so few rows, and no test can tell; add rows, or merge labels",
)  # fmt: skip
SPELLED = Kind(
    "label-spellings", "warning", "{n} with labels that differ from others in case or space alone",
    "they are learnt as two labels", "relabel",
)  # fmt: skip
LONG = Kind(
    "too-long", "warning", "{n} longer than the model takes",
    "they are left out of training, or cut",
)  # fmt: skip
OUTLYING = Kind(
    "outlying-lengths", "note", "{n} far longer than the others",
    "often several rows in one, or a document that was not cut; a batch waits for its longest row",
)  # fmt: skip
STRANGE = Kind(
    "other-languages", "note", "{n} in a language that few rows are in",
    "too few to be learnt, and often there by mistake",
)  # fmt: skip
OPENINGS = Kind(
    "boilerplate", "note", "{n} beginning their answers with the same words",
    "a model learns these words first, and writes them everywhere",
)  # fmt: skip
MANY = Kind(
    "many-labels", "warning", "{n} with labels beyond the first hundred thousand different ones",
    "nobody learns so many; perhaps these are no labels, but texts or ids",
)  # fmt: skip
MAX_LABELS = 100_000
LEAST_OF_LABEL = 5
EXCERPTED = 2000
"""Characters of a text that are held until it is known whether it is shown."""
UNEVEN_TIMES = 10
"""Rows of the most frequent label for one of the rarest, from which labels are uneven."""
OUTLYING_TIMES = 20
"""Times the median length."""
SAMPLE = 20_000
"""Rows whose language is found, the first ones of each hash."""
LANGUAGE_SHARE = 0.01
LANGUAGE_CHARACTERS = 60
"""Below which nobody can tell a language."""
SURE = 0.99
OPENING_WORDS = 5
OPENING_SHARE = 0.1
OPENING_CASES = 10
LEAST_OF_GROUP = 20
"""Rows from which a group's rates are told."""
FALSE_SHARE = 0.05
"""Of the differences that are told, those that are there by chance."""

Measure = Callable[[Sequence[str]], Sequence[int]]


def labels_of(row: Seen) -> tuple[str, ...]:
    """The names that a row is labelled with; numbers are none."""
    example = row.example
    if isinstance(example, Labelled) and example.form != "number":
        return example.labels
    return ()


class LabelCheck:
    """Counts labels."""

    name = "labels"

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._many = Gathered(MANY)
        self._cases: dict[str, list[Case]] = defaultdict(list)
        self._positions: dict[str, array[int]] = defaultdict(lambda: array("q"))
        self.usual: dict[str, str] = {}
        """Each label that is spelled otherwise than another -> the more frequent spelling."""

    def see(self, rows: Sequence[Seen]) -> None:
        """Count the labels of rows."""
        for row in rows:
            for label in labels_of(row):
                if len(self.counts) >= MAX_LABELS and label not in self.counts:
                    self._many.add(row, row.question, f"{label!r}")
                    continue
                self.counts[label] += 1
                self._positions[label].append(row.position)
                if len(self._cases[label]) < LEAST_OF_LABEL:
                    case = Case(row.position, row.place, row.question[:EXCERPTED])
                    self._cases[label].append(case)

    def problems(self) -> Iterable[Problem]:
        """Labels that are uneven, rare, or spelled in two ways."""
        counts = self.counts
        yield from self._many.problem()
        if len(counts) < 2:
            return
        most, least = counts.most_common()[0], counts.most_common()[-1]
        rare = Gathered(RARE)
        for label in [label for label, n in counts.items() if n < LEAST_OF_LABEL]:
            rare.positions.extend(self._positions[label])
            if len(rare.cases) < MAX_CASES:
                said = f"{label!r} has {counts[label]}"
                rare.cases += [_told(case, said) for case in self._cases[label]]
        if most[1] >= UNEVEN_TIMES * least[1]:
            title = f"{most[0]!r} has {most[1]:,} rows, {least[0]!r} has {least[1]:,}"
            yield problem_of(_titled(UNEVEN, title), (), ())
        yield from rare.problem()
        yield from self._spelled()

    def _spelled(self) -> Iterable[Problem]:
        first: dict[str, str] = {}
        positions: list[int] = []
        cases = []
        for label, number in self.counts.most_common():
            usual = first.setdefault(" ".join(label.casefold().split()), label)
            if usual == label:
                continue
            self.usual[label] = usual
            positions += self._positions[label]
            said = f"{label!r} ({number} rows), as {usual!r} ({self.counts[usual]})"
            cases += [_told(case, said) for case in self._cases[label]]
        if positions:
            yield problem_of(SPELLED, positions, cases)


def _told(case: Case, detail: str) -> Case:
    """With what is wrong, and as a report shows it."""
    return replace(case, text=excerpt(case.text), detail=detail)


def _titled(kind: Kind, title: str) -> Kind:
    safe = title.replace("{", "{{").replace("}", "}}")
    return Kind(kind.name, kind.severity, safe, kind.why, kind.fix)


class LengthCheck:
    """Measures rows: in tokens where a tokenizer is given, else in characters."""

    name = "lengths"

    def __init__(self, measure: Measure | None = None, limit: int | None = None) -> None:
        self._measure, self._limit = measure, limit
        self.unit = "tokens" if measure else "characters"
        self._lengths, self._positions = Growing(np.int32), Growing(np.int64)
        self._longest: list[tuple[int, Case]] = []
        self._too_long = Gathered(LONG)

    def see(self, rows: Sequence[Seen]) -> None:
        """Measure all that each row says."""
        said = ["\n".join(row.texts) for row in rows]
        lengths = self._measure(said) if self._measure else [len(text) for text in said]
        self._lengths.extend(np.asarray(lengths, dtype=np.int32))
        self._positions.extend([row.position for row in rows])
        for row, length in zip(rows, lengths, strict=True):
            if self._limit and length > self._limit:
                detail = f"{length:,} {self.unit}, of {self._limit:,} that the model takes"
                self._too_long.add(row, row.question, detail)
        best: list[tuple[int, Seen | Case]] = [*self._longest, *zip(lengths, rows, strict=True)]
        best = sorted(best, key=lambda pair: -pair[0])[:MAX_CASES]
        self._longest = [(length, _shown(row)) for length, row in best]

    @property
    def lengths(self) -> np.ndarray:
        """Of all rows, in order."""
        found: np.ndarray = self._lengths.array
        return found

    def problems(self) -> Iterable[Problem]:
        """Rows that are too long, or far longer than others."""
        yield from self._too_long.problem()
        if len(self._lengths) < 100:
            return
        median = float(np.median(self.lengths))
        limit = max(OUTLYING_TIMES * median, 1000)
        cases = [
            _told(case, f"{length:,} {self.unit}, the median is {median:,.0f}")
            for length, case in self._longest if length > limit
        ]  # fmt: skip
        if cases:
            yield problem_of(OUTLYING, self._positions.array[self.lengths > limit], cases)


def _shown(row: Seen | Case) -> Case:
    if isinstance(row, Case):
        return row
    return Case(row.position, row.place, (row.question or row.answer)[:EXCERPTED])


class LanguageCheck:
    """Finds the languages of a sample of rows (py3langid)."""

    name = "languages"

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._rows: dict[str, Gathered] = {}
        self._num_seen = 0

    def see(self, rows: Sequence[Seen]) -> None:
        """Tell the language of rows that are long enough."""
        identifier = _identifier()
        for row in islice(rows, max(0, SAMPLE - self._num_seen)):
            self._num_seen += 1
            is_prose = row.is_written and row.answer[:1] not in "{[<"
            text = f"{row.question}\n{row.answer}" if is_prose else row.question
            if sum(map(str.isalpha, text)) < LANGUAGE_CHARACTERS:
                continue
            language, sureness = identifier.classify(text[:2000])
            if sureness >= SURE:
                self.counts[language] += 1
                gathered = self._rows.setdefault(language, Gathered(STRANGE))
                gathered.add(row, text, f"seems to be {language}")

    def problems(self) -> Iterable[Problem]:
        """Rows in languages that hardly any are in."""
        total = self.counts.total()
        if total < 200:
            return
        found = Gathered(STRANGE)
        for language, number in self.counts.items():
            if number < LANGUAGE_SHARE * total:
                found.positions.extend(self._rows[language].positions.array)
                found.cases += self._rows[language].cases
        yield from found.problem()


@lru_cache(1)
def _identifier() -> Any:
    """Tells language and probability."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class OpeningCheck:
    """Counts how answers begin."""

    name = "boilerplate"

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._hashes, self._positions = Growing(np.uint32), Growing(np.int64)
        self._cases: dict[str, list[Case]] = {}

    def see(self, rows: Sequence[Seen]) -> None:
        """Count the first words of answers that are long."""
        for row in rows:
            words = row.answer[:200].split()[: OPENING_WORDS + 1] if row.is_written else []
            if len(words) <= OPENING_WORDS or words[0][0] in "{[<":
                continue
            opening = " ".join(words[:OPENING_WORDS])
            self._hashes.extend([_hash(opening)])
            self._positions.extend([row.position])
            self.counts[opening] += 1
            if self.counts[opening] >= 0.1 * OPENING_SHARE * len(self._hashes):
                cases = self._cases.setdefault(opening, [])
                if len(cases) < OPENING_CASES:
                    cases.append(Case(row.position, row.place, excerpt(row.answer), opening))
        if len(self.counts) > 200_000:
            self.counts = Counter(dict(self.counts.most_common(50_000)))
            self._cases = {key: own for key, own in self._cases.items() if key in self.counts}

    def problems(self) -> Iterable[Problem]:
        """Beginnings that a large part of all answers has."""
        hashes, found = self._hashes.array, Gathered(OPENINGS)
        if len(hashes) < 50:
            return
        for opening, _ in self.counts.most_common(20):
            is_so = hashes == _hash(opening)
            if is_so.sum() >= OPENING_SHARE * len(hashes):
                found.positions.extend(self._positions.array[is_so])
                found.cases += self._cases.get(opening, [])
        yield from found.problem()


def _hash(opening: str) -> int:
    return zlib.crc32(opening.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Rate:
    """How often rows of a group have a label."""

    column: str
    group: str
    num_rows: int
    label: str
    rate: float
    low: float
    high: float
    """Wilson's interval at 95 %."""


class SliceCheck:
    """Counts the values of every other column, and the labels of each: who gets what."""

    name = "slices"
    MAX_VALUES = 30

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._labels: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def see(self, rows: Sequence[Seen]) -> None:
        """Count."""
        for row in rows:
            labels = row.example.labels if isinstance(row.example, Labelled) else ()
            for column, value in row.example.slices.items():
                counts = self.counts[column]
                if len(counts) <= self.MAX_VALUES:
                    counts[value] += 1
                    self._labels[column][value].update(labels)

    def tables(self) -> dict[str, dict[str, int]]:
        """Columns with few values, and the rows of each value."""
        return {
            column: dict(counts.most_common())
            for column, counts in self.counts.items()
            if 1 < len(counts) <= self.MAX_VALUES
        }

    def rates(self) -> list[Rate]:
        """Label rates of groups that differ from that of all rows.

        Of those told, one in twenty is expected to be by chance, however many were compared
        (Benjamini and Hochberg 1995).
        """
        from scipy.stats import false_discovery_control

        found, chances = [], []
        for column, groups in self.tables().items():
            labels = sum(self._labels[column].values(), Counter[str]())
            total = sum(groups.values())
            for group, number in groups.items():
                own = self._labels[column][group]
                for label, of_all in labels.most_common(50) if number >= LEAST_OF_GROUP else ():
                    rate, chance = _rate((column, group), number, label, own[label], of_all / total)
                    found.append(rate)
                    chances.append(chance)
        if not found:
            return []
        kept = false_discovery_control(chances) <= FALSE_SHARE
        return [rate for rate, is_kept in zip(found, kept, strict=True) if is_kept]

    def problems(self) -> Iterable[Problem]:
        """Groups whose labels differ from the others'."""
        rates = self.rates()
        for rate in rates[:1]:
            others = len(rates) - 1
            title = (
                f"{rate.column} {rate.group!r} has {rate.label!r} in {100 * rate.rate:.1f} % "
                f"(95 % interval {100 * rate.low:.1f} to {100 * rate.high:.1f})"
                + f", and {others} more such differences"
                * (others > 0)
            )
            yield problem_of(_titled(DIFFERENT, title), (), ())


DIFFERENT = Kind(
    "label-rates", "note", "", "a model may learn the group instead of what rows say; look whether "
    "the difference is there in the world, or in how rows were gathered",
)  # fmt: skip


def _rate(
    named: tuple[str, str], number: int, label: str, hits: int, of_all: float
) -> tuple[Rate, float]:
    """The rate of a label in a group, and how often chance gives one as far from that of all."""
    from scipy.stats import binomtest

    tested = binomtest(hits, number, of_all)
    interval = tested.proportion_ci(method="wilson")
    rate = Rate(*named, number, label, hits / number, float(interval.low), float(interval.high))
    return rate, float(tested.pvalue)
