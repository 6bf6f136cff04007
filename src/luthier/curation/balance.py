"""What a dataset is made of: labels, lengths, languages, beginnings, and what groups get."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np

from luthier.curation.looking import Growing, Seen
from luthier.curation.privacy import excerpt
from luthier.curation.problems import Case, Gathered, Kind, Problem, problem_of
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
LEAST_OF_LABEL = 5
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
        self._rows: dict[str, list[Seen]] = defaultdict(list)
        self._positions: dict[str, array[int]] = defaultdict(lambda: array("q"))
        self.usual: dict[str, str] = {}
        """Each label that is spelled otherwise than another -> the more frequent spelling."""

    def see(self, rows: Sequence[Seen]) -> None:
        """Count the labels of rows."""
        for row in rows:
            for label in labels_of(row):
                self.counts[label] += 1
                self._positions[label].append(row.position)
                if len(self._rows[label]) < LEAST_OF_LABEL:
                    self._rows[label].append(row)

    def problems(self) -> Iterable[Problem]:
        """Labels that are uneven, rare, or spelled in two ways."""
        counts = self.counts
        if len(counts) < 2:
            return
        most, least = counts.most_common()[0], counts.most_common()[-1]
        rare = Gathered(RARE)
        for label in [label for label, n in counts.items() if n < LEAST_OF_LABEL]:
            for row in self._rows[label]:
                rare.add(row, row.question, f"{label!r} has {counts[label]}")
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
            cases += [
                Case(row.position, row.place, excerpt(row.question), said)
                for row in self._rows[label]
            ]
        if positions:
            yield problem_of(SPELLED, positions, cases)


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
        self._longest: list[tuple[int, Seen]] = []
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
        best = [*self._longest, *zip(lengths, rows, strict=True)]
        self._longest = sorted(best, key=lambda pair: -pair[0])[:200]

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
            Case(row.position, row.place, excerpt(row.question or row.answer),
                 f"{length:,} {self.unit}, the median is {median:,.0f}")
            for length, row in self._longest if length > limit
        ]  # fmt: skip
        if cases:
            yield problem_of(OUTLYING, self._positions.array[self.lengths > limit], cases)


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
        self._first: dict[str, Gathered] = {}
        self._total = 0

    def see(self, rows: Sequence[Seen]) -> None:
        """Count the first words of answers that are long."""
        for row in rows:
            words = row.answer[:200].split()[: OPENING_WORDS + 1] if row.is_written else []
            if len(words) <= OPENING_WORDS or words[0][0] in "{[<":
                continue
            self._total += 1
            opening = " ".join(words[:OPENING_WORDS])
            self.counts[opening] += 1
            if self.counts[opening] > 1 and len(self._first) < 1000:
                self._first.setdefault(opening, Gathered(OPENINGS)).add(row, row.answer, opening)
        if len(self.counts) > 200_000:
            self.counts = Counter(dict(self.counts.most_common(50_000)))

    def problems(self) -> Iterable[Problem]:
        """Beginnings that a large part of all answers has."""
        if self._total < 50:
            return
        found = Gathered(OPENINGS)
        for opening, number in self.counts.most_common(20):
            gathered = self._first.get(opening)
            if number >= OPENING_SHARE * self._total and gathered is not None:
                found.positions.extend(gathered.positions.array)
                found.cases += gathered.cases[:10]
        yield from found.problem()


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
        """Label rates of groups whose interval does not hold the rate of all rows."""
        found = []
        for column, groups in self.tables().items():
            labels = sum(self._labels[column].values(), Counter[str]())
            total = sum(groups.values())
            for group, number in groups.items():
                own = self._labels[column][group]
                rates = [(_rate(column, group, number, label, own[label]), of_all / total)
                         for label, of_all in labels.most_common(50)]  # fmt: skip
                found += [rate for rate, all_rows in rates
                          if number >= 20 and not rate.low <= all_rows <= rate.high]  # fmt: skip
        return found

    def problems(self) -> Iterable[Problem]:
        """Groups whose labels differ from the others'."""
        for rate in self.rates()[:1]:
            others = len(self.rates()) - 1
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


def _rate(column: str, group: str, number: int, label: str, hits: int) -> Rate:
    from scipy.stats import binomtest

    interval = binomtest(hits, number).proportion_ci(method="wilson")
    return Rate(
        column, group, number, label, hits / number, float(interval.low), float(interval.high)
    )
