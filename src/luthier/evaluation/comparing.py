"""Scores become estimates, and two systems' scores a paired comparison.

Takes scores per row in the order of the rows, gives `Estimate`s and `Comparison`s. A row without a
score under either system is left out of the pair, and `n` says how many are left. Each call draws
from its own generator, so that another metric or system never changes an interval.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luthier.data import Example
from luthier.errors import EvaluationError
from luthier.evaluation.clusters import (
    clustered,
    clustered_mean,
    clustered_rate,
    clustered_test,
)
from luthier.evaluation.power import (
    detectable_by,
    detectable_mean_difference,
    detectable_rate_difference,
)
from luthier.evaluation.statistics import (
    Interval,
    Significance,
    mcnemar,
    mean_interval,
    mean_test,
    tango,
    wilson,
)
from luthier.evaluation.values import Comparison, Estimate, Metric, Prediction, SystemResult
from luthier.recipe import Judging

# A number has clearly changed on one row when it moved by more than this, in the metric's unit:
# 5 points of 100, or every token of the target about a tenth more or less likely.
CLEAR_CHANGE = {"share": 0.05, "points": 5.0, "nats": 0.1, "plain": 0.05}
INFINITE = float("inf")
RANGES = {
    "share": (0.0, 1.0), "points": (0.0, 100.0), "nats": (0.0, INFINITE),
    "plain": (-INFINITE, INFINITE),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Pair:
    example_id: str
    baseline: float
    candidate: float
    group: str

    @property
    def difference(self) -> float:
        return self.candidate - self.baseline


def perplexity(predictions: Sequence[Prediction]) -> float | None:
    """exp of the mean loss per reference token, each token counting once.

    None when no loss is known, or when the number is too large to be one.
    """
    known = [
        (prediction.target_loss, prediction.target_tokens)
        for prediction in predictions
        if prediction.target_loss is not None and prediction.target_tokens
    ]
    if not known:
        return None
    mean = math.fsum(loss * n for loss, n in known) / sum(n for _, n in known)
    return math.exp(mean) if mean < math.log(sys.float_info.max) else None


def groups_of(examples: Sequence[Example], evaluation: Judging) -> tuple[str, ...]:
    """The group of each row, where the recipe names a column; else nothing.

    Raises EvaluationError when a row has no such column.
    """
    column = evaluation.group
    without = next((e for e in examples if column and column not in e.slices), None)
    if without is not None:
        columns = ", ".join(sorted(without.slices)) or "none"
        raise EvaluationError(
            f"has no column {column}", where=str(without.place), accepted=f"a row with {column}",
            advice=f"its columns are: {columns}; set evaluation.group to one that all rows have",
        )  # fmt: skip
    return tuple(example.slices[column] for example in examples) if column else ()


def estimate(
    metric: Metric,
    scores: Sequence[float | None],
    evaluation: Judging,
    *,
    seed: int,
    groups: Sequence[str] = (),
) -> Estimate:
    """The mean over the rows that have a score, every row counting once, with its interval.

    `groups` are those of the rows, where they belong together.
    """
    known = [score for score in scores if score is not None]
    if not known:
        return Estimate(None, None, None, 0, "no scored rows")
    value = sum(known) / len(known)
    if groups:
        own = [g for g, score in zip(groups, scores, strict=True) if score is not None]
        limits = clustered_rate if metric.kind == "pass_fail" else clustered_mean
        interval = limits(clustered(known, own), evaluation.confidence)
    elif metric.kind == "pass_fail":
        interval = wilson(round(sum(known)), len(known), evaluation.confidence)
    else:
        rng = np.random.default_rng(seed)
        interval = mean_interval(known, evaluation.confidence, evaluation.resamples, rng)
    lowest, highest = RANGES[metric.unit]
    low = None if interval.low is None else max(interval.low, lowest)
    high = None if interval.high is None else min(interval.high, highest)
    return Estimate(value, low, high, len(known), interval.method)


def compare(
    metric: Metric,
    baseline: SystemResult,
    candidate: SystemResult,
    evaluation: Judging,
    *,
    seed: int,
    groups: Sequence[str] = (),
) -> Comparison | None:
    """Compare two systems row by row; None when no row has a score under both.

    `groups` are those of the rows, where they belong together.
    """
    pairs = _pairs(metric, baseline, candidate, groups)
    if not pairs:
        return None
    sign = 1 if metric.higher_is_better else -1
    margin = 0.0 if metric.kind == "pass_fail" else CLEAR_CHANGE[metric.unit]
    compare_pairs = _compare_rates if metric.kind == "pass_fail" else _compare_means
    compare_pairs = _compare_groups if groups else compare_pairs
    interval, significance, detectable = compare_pairs(pairs, evaluation, seed)
    baseline_value = sum(pair.baseline for pair in pairs) / len(pairs)
    candidate_value = sum(pair.candidate for pair in pairs) / len(pairs)
    return Comparison(
        metric=metric.name,
        baseline=baseline.name,
        candidate=candidate.name,
        n=len(pairs),
        baseline_value=baseline_value,
        candidate_value=candidate_value,
        difference=candidate_value - baseline_value,
        low=interval.low,
        high=interval.high,
        interval_method=interval.method,
        p_value=significance.p_value,
        test=significance.test,
        minimum_detectable=detectable,
        fixed=tuple(p.example_id for p in pairs if sign * p.difference > margin),
        broken=tuple(p.example_id for p in pairs if -sign * p.difference > margin),
        num_groups=len({pair.group for pair in pairs}) if groups else None,
    )


def _pairs(
    metric: Metric, baseline: SystemResult, candidate: SystemResult, groups: Sequence[str]
) -> list[_Pair]:
    ids = [prediction.example_id for prediction in candidate.predictions]
    scores = baseline.scores[metric.name], candidate.scores[metric.name]
    return [
        _Pair(example_id, before, after, group)
        for example_id, before, after, group in zip(ids, *scores, groups or ids, strict=True)
        if before is not None and after is not None
    ]


def _compare_rates(
    pairs: Sequence[_Pair], evaluation: Judging, seed: int
) -> tuple[Interval, Significance, float | None]:
    n = len(pairs)
    up = sum(pair.difference > 0 for pair in pairs)
    down = sum(pair.difference < 0 for pair in pairs)
    return (
        tango(up, down, n, evaluation.confidence),
        mcnemar(up, down),
        detectable_rate_difference(min(up, down), n, evaluation.confidence),
    )


def _compare_groups(
    pairs: Sequence[_Pair], evaluation: Judging, seed: int
) -> tuple[Interval, Significance, float | None]:
    differences, groups = [pair.difference for pair in pairs], [pair.group for pair in pairs]
    found, rng = clustered(differences, groups), np.random.default_rng(seed)
    interval = clustered_mean(found, evaluation.confidence)
    if not any(differences) and all({p.baseline, p.candidate} <= {0, 1} for p in pairs):
        # No row changed: no spread is seen, but no certainty either.
        interval = tango(0, 0, found.num_groups, evaluation.confidence)
    return (
        interval,
        clustered_test(differences, groups, evaluation.resamples, rng),
        detectable_by(found.standard_error or 0.0, found.freedom, evaluation.confidence),
    )


def _compare_means(
    pairs: Sequence[_Pair], evaluation: Judging, seed: int
) -> tuple[Interval, Significance, float | None]:
    differences = [pair.difference for pair in pairs]
    confidence, resamples = evaluation.confidence, evaluation.resamples
    return (
        mean_interval(differences, confidence, resamples, np.random.default_rng(seed)),
        mean_test(differences, resamples, np.random.default_rng(seed)),
        detectable_mean_difference(differences, confidence),
    )
