"""The evaluation's parts of the page: headline, scores, the paired comparison.

Estimates and comparisons go in, words and charts come out. No statistics are made here: a number
that evaluation did not give is not shown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from luthier.evaluation.values import Comparison, EvaluationResult, Metric, SystemResult
from luthier.report.bars import Bar, Segment, difference_chart, outcome_bar, score_bars
from luthier.report.numbers import (
    MISSING,
    count,
    counted,
    difference,
    difference_interval,
    duration,
    metric_interval,
    metric_value,
    p_value,
    perplexity,
    signed_difference,
)
from luthier.report.pairing import OUTCOME_ORDER, Pairing, outcome_titles, row_outcomes

DECISIONS = {"better": "better", "worse": "worse", "cannot tell": "unclear"}
SYMBOLS = {"better": "\u25b2", "worse": "\u25bc", "unclear": "\u25c6", "none": "\u25cb"}


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict at a glance; `decision` names the colour, `symbol` says it without one."""

    decision: str
    symbol: str
    words: str
    about: str
    paragraph: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One estimate in the table of scores."""

    value: str
    interval: str
    is_best: bool


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One system in the table of scores."""

    system: str
    is_tuned: bool
    cells: tuple[Cell, ...]
    perplexity: str
    num_cut: str
    seconds: str


@dataclass(frozen=True, slots=True)
class Scores:
    """The primary metric as bars, and all metrics of all systems as a table."""

    chart: Markup
    primary: Metric
    method: str
    metrics: tuple[Metric, ...]
    has_perplexity: bool
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True, slots=True)
class ComparisonLine:
    """One comparison in words."""

    metric: str
    baseline: str
    candidate: str
    difference: str
    interval: str
    p_value: str
    adjusted: str
    """The p-value adjusted for many looks, where one was made."""
    test: str
    fixed: str
    broken: str


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison that the verdict stands on, and the lines of all others."""

    line: ComparisonLine
    n: str
    values: tuple[str, str]
    smallest: str
    has_smallest: bool
    interval_method: str
    chart: Markup
    outcome_chart: Markup | None
    """None for a metric that no single row has."""
    segments: tuple[Segment, ...]


def headline(evaluation: EvaluationResult | None, pairing: Pairing | None) -> Headline:
    """The verdict as a headline; without one, why there is none."""
    if evaluation is None:
        return Headline(
            "none", SYMBOLS["none"], "Not evaluated", "",
            "This run holds no evaluation, so nothing can be said about whether it helped.",
        )  # fmt: skip
    if evaluation.verdict is None or pairing is None:
        return Headline(
            "none", SYMBOLS["none"], "No verdict", "",
            "A verdict needs a tuned model and a baseline that answered the same rows.",
        )  # fmt: skip
    verdict, comparison = evaluation.verdict, evaluation.verdict.comparison
    decision = DECISIONS[verdict.decision]
    by = difference(comparison.difference, pairing.metric.unit)
    words = "Cannot tell" if decision == "unclear" else f"{verdict.decision.capitalize()} by {by}"
    about = f"{pairing.metric.title} on {counted(comparison.n, 'held-out row')}"
    return Headline(
        decision, SYMBOLS[decision], words, f"{about}, against {comparison.baseline}",
        verdict.paragraph,
    )  # fmt: skip


def scores(evaluation: EvaluationResult, metric: Metric) -> Scores:
    """Bars of one metric and the table of all."""
    others = tuple(other for other in evaluation.metrics if other != metric)
    metrics = (metric, *others)
    bars = [
        Bar(system.name, system.estimates.get(metric.name), system.is_candidate)
        for system in evaluation.systems
    ]
    estimates = [bar.estimate for bar in bars if bar.estimate]
    best = {each.name: _best_value(evaluation.systems, each) for each in metrics}
    rows = tuple(_score_row(system, metrics, best) for system in evaluation.systems)
    method = estimates[0].method if estimates else ""
    has_perplexity = any(system.perplexity is not None for system in evaluation.systems)
    return Scores(score_bars(metric, bars), metric, method, metrics, has_perplexity, rows)


def compared(evaluation: EvaluationResult, pairing: Pairing) -> Compared | None:
    """The verdict's comparison, drawn and in words."""
    comparison, verdict, metric = pairing.comparison, evaluation.verdict, pairing.metric
    if comparison is None or verdict is None:
        return None
    totals = Counter(row_outcomes(evaluation, pairing))
    titles = outcome_titles(metric)
    order = ("both_right", "fixed", "broken", "both_wrong", "similar", "unscored")
    segments = tuple(
        Segment(outcome, titles[outcome], totals[outcome])
        for outcome in sorted(OUTCOME_ORDER, key=order.index)
        if outcome in titles and (totals[outcome] or outcome in ("fixed", "broken"))
        if metric.kind != "whole"
    )
    smallest = comparison.minimum_detectable
    return Compared(
        line=comparison_line(comparison, metric),
        n=counted(comparison.n, "row"),
        values=(
            metric_value(comparison.baseline_value, metric.unit),
            metric_value(comparison.candidate_value, metric.unit),
        ),
        smallest=difference(smallest, metric.unit),
        has_smallest=smallest is not None,
        interval_method=comparison.interval_method,
        chart=difference_chart(metric, comparison, DECISIONS[verdict.decision]),
        outcome_chart=outcome_bar(segments) if segments else None,
        segments=segments,
    )


def comparison_line(comparison: Comparison, metric: Metric) -> ComparisonLine:
    """A comparison in words, for tables."""
    return ComparisonLine(
        metric=metric.title,
        baseline=comparison.baseline,
        candidate=comparison.candidate,
        difference=signed_difference(comparison.difference, metric.unit),
        interval=difference_interval(comparison.low, comparison.high, metric.unit),
        p_value=p_value(comparison.p_value),
        adjusted=""
        if comparison.adjusted_p_value is None
        else f"adjusted {p_value(comparison.adjusted_p_value)}",
        test=comparison.test,
        fixed=count(len(comparison.fixed)),
        broken=count(len(comparison.broken)),
    )


def comparison_lines(evaluation: EvaluationResult) -> tuple[ComparisonLine, ...]:
    """Every comparison whose metric is known, in the order in which they were made."""
    metrics = {metric.name: metric for metric in evaluation.metrics}
    return tuple(
        comparison_line(comparison, metrics[comparison.metric])
        for comparison in evaluation.comparisons
        if comparison.metric in metrics
    )


def _score_row(
    system: SystemResult, metrics: Sequence[Metric], best: dict[str, float | None]
) -> ScoreRow:
    num_cut = sum(not prediction.stopped for prediction in system.predictions)
    return ScoreRow(
        system=system.name,
        is_tuned=system.is_candidate,
        cells=tuple(_cell(system, metric, best[metric.name]) for metric in metrics),
        perplexity=perplexity(system.perplexity),
        num_cut=count(num_cut),
        seconds=duration(system.seconds),
    )


def _cell(system: SystemResult, metric: Metric, best: float | None) -> Cell:
    estimate = system.estimates.get(metric.name)
    if estimate is None or estimate.value is None:
        return Cell(MISSING, "", is_best=False)
    return Cell(
        metric_value(estimate.value, metric.unit),
        metric_interval(estimate.low, estimate.high, metric.unit),
        is_best=estimate.value == best,
    )


def _best_value(systems: Sequence[SystemResult], metric: Metric) -> float | None:
    estimates = [system.estimates.get(metric.name) for system in systems]
    values = [e.value for e in estimates if e and e.value is not None]
    if len(values) < 2:
        return None
    return max(values) if metric.higher_is_better else min(values)
