"""Metrics that no single row has, such as macro F1: one number over all rows, by resampling.

A `WholeScorer` gives its number for any weights of the rows. Its interval is a percentile bootstrap
over rows (Efron and Tibshirani 1993, section 13.3), a difference of two systems is resampled with
the same rows for both, and tested by swapping the systems' answers row by row (a paired permutation
test). Rows that are equal in truth and answers are drawn together: how often a kind of row is drawn
is multinomial, and how many of it change places binomial, which is the same and far less work where
100,000 rows are of a few hundred kinds. Knows neither models nor pages.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy

from luthier.data import Example
from luthier.evaluation.comparing import groups_of
from luthier.evaluation.power import POWER
from luthier.evaluation.values import Comparison, Estimate, Metric, Prediction, SystemResult
from luthier.recipe import Judging

Numbers = npt.NDArray[np.float64]
Kinds = npt.NDArray[np.intp]
CHUNK = 2**22
"""Weights held at once."""


class Evidence(Protocol):
    """What a metric needs to know of rows and answers, as arrays over the rows."""

    def joined(self, other: Any) -> Any:
        """These rows, and after them the other's."""
        ...

    def kinds(self) -> Kinds:
        """[n]: a number for each row, the same for equal ones."""
        ...

    def at(self, rows: Kinds) -> Any:
        """Only these rows, in this order."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class WholeScorer:
    """Judges all answers of a system together."""

    metric: Metric
    look: Callable[[Sequence[Prediction], Sequence[Example]], Evidence]
    """Predictions and examples, in the same order, as arrays."""
    values: Callable[[Any, Numbers], Numbers]
    """The number [R] for each of R weightings [R, n] of the rows; NaN where there is none."""


def estimate_whole(
    scorer: WholeScorer,
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    evaluation: Judging,
    *,
    seed: int,
) -> Estimate:
    """The number over all rows, with its interval."""
    evidence = scorer.look(predictions, examples)
    value = _single(scorer, evidence)
    if value is None:
        return Estimate(None, None, None, 0, "no scored rows")
    rng = np.random.default_rng(seed)
    sample = _Sample.of((evidence,), examples, evaluation)
    (evidence,) = sample.sides
    drawn = [
        scorer.values(evidence, weights) for weights in sample.drawn(evaluation.resamples, rng)
    ]
    low, high = percentiles(np.concatenate(drawn), evaluation.confidence)
    return Estimate(value, low, high, sample.num_rows, "percentile bootstrap")


def compare_whole(
    scorer: WholeScorer,
    baseline: SystemResult,
    candidate: SystemResult,
    examples: Sequence[Example],
    evaluation: Judging,
    *,
    seed: int,
) -> Comparison | None:
    """Compare two systems on the same rows; None when the number of either is not known."""
    before, after = (scorer.look(system.predictions, examples) for system in (baseline, candidate))
    first, second = _single(scorer, before), _single(scorer, after)
    if first is None or second is None:
        return None
    difference = second - first
    rng = np.random.default_rng(seed)
    sample = _Sample.of((before, after), examples, evaluation)
    before, after = sample.sides
    drawn = np.concatenate(
        [
            scorer.values(after, weights) - scorer.values(before, weights)
            for weights in sample.drawn(evaluation.resamples, rng)
        ]
    )
    low, high = percentiles(drawn, evaluation.confidence)
    spread = float(np.nanstd(drawn, ddof=1))
    normal = scipy.stats.norm
    quantile = float(normal.ppf((1 + evaluation.confidence) / 2) + normal.ppf(POWER))
    return Comparison(
        metric=scorer.metric.name,
        baseline=baseline.name,
        candidate=candidate.name,
        n=sample.num_rows,
        baseline_value=first,
        candidate_value=second,
        difference=difference,
        low=low,
        high=high,
        interval_method="paired percentile bootstrap",
        p_value=_swap_test(scorer, sample, abs(difference), evaluation.resamples, rng),
        test="paired permutation",
        minimum_detectable=quantile * spread if spread > 0 else None,
        fixed=(),
        broken=(),
        num_groups=None if sample.units is None else int(sample.units.max()) + 1,
    )


def _single(scorer: WholeScorer, evidence: Evidence) -> float | None:
    if not len(evidence):
        return None
    value = float(scorer.values(evidence, np.ones((1, len(evidence))))[0])
    return value if np.isfinite(value) else None


def _chunks(n: int, count: int) -> list[int]:
    """Numbers of weightings that make up `count`, few enough at once."""
    size = max(1, CHUNK // max(1, n))
    return [min(size, count - start) for start in range(0, count, size)]


Units = npt.NDArray[np.intp]


def units_of(examples: Sequence[Example], evaluation: Judging) -> Units:
    """What is drawn together: the number of each row's group, or a number of its own."""
    groups = groups_of(examples, evaluation)
    if not groups:
        return np.arange(len(examples))
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def resampled(units: Units, count: int, rng: np.random.Generator) -> Iterator[Numbers]:
    """How often each row is drawn, [R, n] a chunk; rows of one unit are drawn together."""
    n = int(units.max()) + 1
    for size in _chunks(max(n, len(units)), count):
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * size).reshape(size, n)
        yield times[:, units].astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Sample:
    """What is drawn from: kinds of rows, or rows of groups that belong together."""

    sides: tuple[Any, ...]
    """The evidence of each system, a row for each kind."""
    counts: npt.NDArray[np.int64]
    """[K]: rows of each kind."""
    units: Units | None
    """[K]: the group of each row, where rows come in groups; each row is then its own kind."""

    @classmethod
    def of(
        cls, sides: tuple[Evidence, ...], examples: Sequence[Example], evaluation: Judging
    ) -> "_Sample":
        if groups_of(examples, evaluation):
            return cls(sides, np.ones(len(sides[0]), np.int64), units_of(examples, evaluation))
        kinds = np.stack([side.kinds() for side in sides], axis=1)
        _, first, counts = np.unique(kinds, axis=0, return_index=True, return_counts=True)
        return cls(tuple(side.at(first) for side in sides), counts.astype(np.int64), None)

    @property
    def num_rows(self) -> int:
        return int(self.counts.sum())

    def drawn(self, count: int, rng: np.random.Generator) -> Iterator[Numbers]:
        """How often rows of each kind are drawn, [R, K] a chunk."""
        if self.units is not None:
            yield from resampled(self.units, count, rng)
            return
        n = self.num_rows
        for size in _chunks(len(self.counts), count):
            yield rng.multinomial(n, self.counts / n, size).astype(np.float64)

    def swapped(self, count: int, rng: np.random.Generator) -> Iterator[Numbers]:
        """How many rows of each kind change places, [R, K] a chunk; groups change as one."""
        units = np.arange(len(self.counts)) if self.units is None else self.units
        for size in _chunks(2 * len(units), count):
            if self.units is None:
                yield rng.binomial(self.counts, 0.5, (size, len(units))).astype(np.float64)
            else:
                swapped = rng.integers(0, 2, (size, int(units.max()) + 1))
                yield swapped[:, units].astype(np.float64)


def _swap_test(
    scorer: WholeScorer, sample: _Sample, observed: float, count: int, rng: np.random.Generator
) -> float:
    """Share of swaps whose difference is as large; the observed one counts among them."""
    before, after = sample.sides
    both, as_large = before.joined(after), 0
    for swapped in sample.swapped(count, rng):
        kept = sample.counts - swapped
        there = scorer.values(both, np.hstack((swapped, kept)))
        here = scorer.values(both, np.hstack((kept, swapped)))
        # Rounding makes equal differences a hair apart.
        as_large += int(np.sum(np.abs(there - here) >= observed - 1e-12))
    return (as_large + 1) / (count + 1)


def percentiles(values: Numbers, confidence: float) -> tuple[float | None, float | None]:
    known = values[np.isfinite(values)]
    if not len(known):
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, (tail, 1 - tail))
    return float(low), float(high)
