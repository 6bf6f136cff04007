"""A comparison becomes a decision, and the decision one paragraph in plain words.

The tuned system is held against the strongest baseline on the primary metric: choosing the best
one on the test rows favours the baseline, so the verdict errs on the side of not helping. Better
or worse takes both an interval without 0 and a p-value below 1 - confidence; anything else is
"cannot tell".
"""

import math
from collections.abc import Sequence
from typing import Literal

from luthier.evaluation.clusters import MIN_GROUPS
from luthier.evaluation.comparing import CLEAR_CHANGE
from luthier.evaluation.power import rows_for_mean_difference, rows_for_rate_difference
from luthier.evaluation.values import Comparison, Metric, SystemResult, Verdict
from luthier.evaluation.wording import (
    format_difference,
    format_estimate,
    format_interval,
    format_p,
)
from luthier.recipe import JUDGE

Decision = Literal["better", "worse", "cannot tell"]

RIVALS = ("zero_shot", "few_shot", "baseline", "rival")
"""Kinds of systems that the one in question must beat."""


def strongest_baseline(
    systems: Sequence[SystemResult], metrics: Sequence[Metric]
) -> SystemResult | None:
    """The rival with the best value of the first metric; None when none has one.

    Of equals the one that is better on the next metric, and so on; then the cheaper: no examples
    before some, and the order given, fewest examples first.
    """
    primary = metrics[0]
    rivals = [
        system
        for system in systems
        if system.kind in RIVALS and system.estimates[primary.name].value is not None
    ]

    def rank(system: SystemResult) -> tuple[list[float], int]:
        return [_cost(system, metric) for metric in metrics], RIVALS.index(system.kind)

    return min(rivals, key=rank, default=None)


def _cost(system: SystemResult, metric: Metric) -> float:
    """A metric's value turned so that less is better."""
    value = system.estimates[metric.name].value
    if value is None:
        return math.inf
    return -value if metric.higher_is_better else value


def decide(
    metric: Metric,
    baseline: SystemResult,
    candidate: SystemResult,
    comparison: Comparison,
    confidence: float,
    doubt: str = "",
) -> Verdict:
    """Say whether the candidate is better, worse, or whether these rows cannot tell.

    A doubt about the scores themselves is a reason that they cannot.
    """
    decision = "cannot tell" if doubt else _decision(metric, comparison, confidence)
    at = f" at n = {comparison.n}" if decision == "cannot tell" else ""
    sentences = (
        f"{decision.capitalize()}{at}.",
        doubt,
        _levels(metric, baseline, candidate, confidence),
        _difference(metric, comparison, confidence),
        _unscored(comparison, len(candidate.predictions)),
        _groups(comparison),
        _changed_rows(metric, comparison),
        _resolution(metric, comparison),
        _rows_needed(metric, comparison, confidence) if decision == "cannot tell" else "",
    )
    return Verdict(decision, " ".join(sentence for sentence in sentences if sentence), comparison)


def _decision(metric: Metric, comparison: Comparison, confidence: float) -> Decision:
    low, high = comparison.low, comparison.high
    excludes_zero = low is not None and high is not None and (low > 0 or high < 0)
    if not excludes_zero or comparison.p_value >= 1 - confidence:
        return "cannot tell"
    return "better" if (comparison.difference > 0) == metric.higher_is_better else "worse"


def _levels(
    metric: Metric, baseline: SystemResult, candidate: SystemResult, confidence: float
) -> str:
    after = format_estimate(metric, candidate.estimates[metric.name], confidence)
    before = format_estimate(metric, baseline.estimates[metric.name], confidence)
    rows = _count(len(candidate.predictions), "held-out row")
    return (
        f"On {rows} {_whose(candidate)} {metric.title} is {after}, "
        f"against {before} for {_rival(baseline)}."
    )


def _whose(candidate: SystemResult) -> str:
    return "the tuned model's" if candidate.kind == "tuned" else f"{candidate.name}'s"


def _rival(system: SystemResult) -> str:
    if system.kind == "rival":
        return system.name
    sort = "baseline" if system.kind == "baseline" else "prompt"
    return f"the strongest {sort} ({system.name})"


def _difference(metric: Metric, comparison: Comparison, confidence: float) -> str:
    difference = format_difference(metric, comparison.difference)
    limits = format_interval(metric, comparison.low, comparison.high)
    lower = "" if metric.higher_is_better else "; lower is better"
    return (
        f"The difference is {difference} ({100 * confidence:g} % interval {limits}; "
        f"{comparison.test}, {format_p(comparison.p_value)}{lower})."
    )


def _unscored(comparison: Comparison, num_rows: int) -> str:
    left_out = num_rows - comparison.n
    if not left_out:
        return ""
    return f"{_count(left_out, 'row')} without a score under both systems had to be left out."


def _groups(comparison: Comparison) -> str:
    if comparison.num_groups is None:
        return ""
    rough = ""
    if comparison.num_groups < MIN_GROUPS:
        rough = f"; with fewer than {MIN_GROUPS} the interval and the test are rough"
    return f"The rows come in {_count(comparison.num_groups, 'group')}{rough}."


def _changed_rows(metric: Metric, comparison: Comparison) -> str:
    if metric.kind == "whole":
        return ""
    if metric.name == JUDGE:
        return (
            f"The judge preferred it in {_count(len(comparison.fixed), 'row')} and the other in "
            f"{_none_or(comparison.broken)}."
        )
    num_fixed, broken = len(comparison.fixed), _none_or(comparison.broken)
    fixed = _count(num_fixed, "row") if num_fixed else "No row"
    if metric.kind == "pass_fail":
        return f"{fixed} {'were' if num_fixed > 1 else 'was'} fixed and {broken} broken."
    margin = format_difference(metric, CLEAR_CHANGE[metric.unit], signed=False)
    return f"{fixed} improved and {broken} worsened by more than {margin}."


def _none_or(rows: Sequence[str]) -> str:
    return f"{len(rows):,}" if rows else "none"


def _resolution(metric: Metric, comparison: Comparison) -> str:
    rows = _count(comparison.n, "row")
    if comparison.minimum_detectable is None:
        return f"With {rows} no difference could have been shown reliably."
    smallest = format_difference(metric, comparison.minimum_detectable, signed=False)
    return f"The smallest difference that {rows} could have shown reliably is {smallest}."


def _rows_needed(metric: Metric, comparison: Comparison, confidence: float) -> str:
    n, difference = comparison.n, abs(comparison.difference)
    if not difference:
        return ""
    if metric.kind == "pass_fail" and comparison.num_groups is None:
        changed_share = (len(comparison.fixed) + len(comparison.broken)) / n
        needed = rows_for_rate_difference(difference, changed_share, confidence)
    elif comparison.minimum_detectable is not None:
        needed = rows_for_mean_difference(difference, comparison.minimum_detectable, n)
    else:
        return ""
    if needed <= n:
        return ""
    return f"To show a difference as small as the observed one takes about {needed:,} rows."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
