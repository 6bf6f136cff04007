"""Which two systems a report sets against each other, and what became of each row between them.

The verdict's comparison decides; without a verdict, the tuned system and the prompted one with the
best primary value stand side by side, and nothing is claimed about them.
"""

from dataclasses import dataclass
from typing import Literal

from luthier.evaluation.values import Comparison, EvaluationResult, Metric, SystemResult
from luthier.recipe import JUDGE

Outcome = Literal["broken", "fixed", "both_wrong", "both_right", "similar", "unscored"]

OUTCOME_ORDER: tuple[Outcome, ...] = (
    "broken",
    "fixed",
    "both_wrong",
    "both_right",
    "similar",
    "unscored",
)
PASS_FAIL_TITLES: dict[Outcome, str] = {
    "broken": "Broken",
    "fixed": "Fixed",
    "both_wrong": "Both wrong",
    "both_right": "Both right",
    "unscored": "Not scored",
}
PREFERRED_TITLES: dict[Outcome, str] = {
    "fixed": "Preferred", "broken": "The other preferred", "both_wrong": "Tied",
    "unscored": "Not judged",
}  # fmt: skip
NUMBER_TITLES: dict[Outcome, str] = {
    "broken": "Worse",
    "fixed": "Better",
    "similar": "No clear change",
    "unscored": "Not scored",
}


@dataclass(frozen=True, slots=True)
class Pairing:
    """The baseline and the tuned system on the primary metric; either may be missing."""

    metric: Metric
    baseline: SystemResult | None
    candidate: SystemResult | None
    comparison: Comparison | None


def pair_systems(evaluation: EvaluationResult) -> Pairing | None:
    """The pair a report is about; None when nothing was scored on the primary metric."""
    metric = next((m for m in evaluation.metrics if m.name == evaluation.primary), None)
    if metric is None:
        return None
    if evaluation.verdict:
        comparison = evaluation.verdict.comparison
        named = {system.name: system for system in evaluation.systems}
        metric = next((m for m in evaluation.metrics if m.name == comparison.metric), metric)
        baseline, candidate = named.get(comparison.baseline), named.get(comparison.candidate)
        return Pairing(metric, baseline, candidate, comparison)
    tuned = [system for system in evaluation.systems if system.is_candidate]
    prompted = [system for system in evaluation.systems if not system.is_candidate]
    baseline = max(prompted, key=lambda system: _rank(system, metric), default=None)
    return Pairing(metric, baseline, tuned[0] if tuned else None, None)


def row_outcomes(evaluation: EvaluationResult, pairing: Pairing) -> tuple[Outcome | None, ...]:
    """What became of each row, in the order of the rows; None where nothing was compared."""
    comparison = pairing.comparison
    is_whole = pairing.metric.kind == "whole"  # which no row has
    if is_whole or comparison is None or pairing.baseline is None or pairing.candidate is None:
        return (None,) * len(evaluation.examples)
    fixed, broken = set(comparison.fixed), set(comparison.broken)
    scores = zip(
        evaluation.examples,
        pairing.baseline.scores[comparison.metric],
        pairing.candidate.scores[comparison.metric],
        strict=True,
    )
    return tuple(
        "fixed"
        if example.id in fixed
        else "broken"
        if example.id in broken
        else _unchanged(pairing.metric, before, after)
        for example, before, after in scores
    )


def outcome_titles(metric: Metric) -> dict[Outcome, str]:
    """The words for outcomes: rows are right or wrong only under a pass/fail metric."""
    if metric.name == JUDGE:
        return PREFERRED_TITLES
    return PASS_FAIL_TITLES if metric.kind == "pass_fail" else NUMBER_TITLES


def _unchanged(metric: Metric, before: float | None, after: float | None) -> Outcome:
    if before is None or after is None:
        return "unscored"
    if metric.kind == "number":
        return "similar"
    return "both_right" if after == 1 else "both_wrong"


def _rank(system: SystemResult, metric: Metric) -> float:
    estimate = system.estimates.get(metric.name)
    if estimate is None or estimate.value is None:
        return float("-inf")
    return estimate.value if metric.higher_is_better else -estimate.value
