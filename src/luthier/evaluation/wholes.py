"""Metrics that no single row has, such as macro F1: one number over all rows, by resampling.

A `WholeScorer` gives its number for any weights of the rows. Its interval is a percentile bootstrap
over rows (Efron and Tibshirani 1993, section 13.3), a difference of two systems is resampled with
the same rows for both, and tested by swapping the systems' answers row by row (a paired permutation
test). Knows neither models nor pages.
"""

from collections.abc import Callable, Sequence
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
CHUNK = 2**22
"""Weights held at once."""


class Evidence(Protocol):
    """What a metric needs to know of rows and answers, as arrays over the rows."""

    def joined(self, other: Any) -> Any:
        """These rows, and after them the other's."""
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
    drawn = [
        scorer.values(evidence, weights)
        for weights in resampled(units_of(examples, evaluation), evaluation.resamples, rng)
    ]
    low, high = percentiles(np.concatenate(drawn), evaluation.confidence)
    return Estimate(value, low, high, len(evidence), "percentile bootstrap")


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
    resamples, n = evaluation.resamples, len(before)
    units = units_of(examples, evaluation)
    drawn = np.concatenate(
        [
            scorer.values(after, weights) - scorer.values(before, weights)
            for weights in resampled(units, resamples, rng)
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
        n=n,
        baseline_value=first,
        candidate_value=second,
        difference=difference,
        low=low,
        high=high,
        interval_method="paired percentile bootstrap",
        p_value=_swap_test(_Swapped(scorer, before, after, units), abs(difference), resamples, rng),
        test="paired permutation",
        minimum_detectable=quantile * spread if spread > 0 else None,
        fixed=(),
        broken=(),
        num_groups=int(units.max()) + 1 if evaluation.group else None,
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


def resampled(units: Units, count: int, rng: np.random.Generator) -> Any:
    """How often each row is drawn, [R, n] a chunk; rows of one unit are drawn together."""
    n = int(units.max()) + 1
    for size in _chunks(max(n, len(units)), count):
        drawn = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * size).reshape(size, n)
        yield times[:, units].astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Swapped:
    """Two systems whose answers change places, unit by unit."""

    scorer: WholeScorer
    before: Evidence
    after: Evidence
    units: Units


def _swap_test(pair: _Swapped, observed: float, count: int, rng: np.random.Generator) -> float:
    """Share of swaps whose difference is as large; the observed one counts among them."""
    both, scorer = pair.before.joined(pair.after), pair.scorer
    as_large = 0
    for size in _chunks(2 * len(pair.before), count):
        swapped = rng.integers(0, 2, (size, int(pair.units.max()) + 1))[:, pair.units]
        swapped = swapped.astype(np.float64)
        there = scorer.values(both, np.hstack((swapped, 1 - swapped)))
        here = scorer.values(both, np.hstack((1 - swapped, swapped)))
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
