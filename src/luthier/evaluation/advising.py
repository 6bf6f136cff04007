"""A verdict becomes a decision: what to do with the system, why, and what to try next.

The rule, with the smallest gain that is worth the system's cost (`evaluation.least_gain`, 0 unless
the recipe says so) and the interval of the gain over the strongest rival:

promote               better, and the whole interval is above the smallest gain
prompting is enough   worse than a prompt or a simple method, or no gain worth its cost is possible
not distinguishable   the interval holds both: these rows cannot tell
keep iterating        anything else: better, but perhaps by too little, or with more general ability
                      lost than the recipe allows; or worse than another system
"""

from collections.abc import Sequence
from dataclasses import replace

from luthier.evaluation.evaluating import AnyScorer
from luthier.evaluation.slices import Slice, slices_of
from luthier.evaluation.values import (
    Comparison,
    Decision,
    DecisionKind,
    EvaluationResult,
    General,
    Metric,
    SystemResult,
    Verdict,
)
from luthier.evaluation.wording import format_difference, format_value
from luthier.recipe import Judging

PROMPTS = ("zero_shot", "few_shot", "baseline")
"""Rivals that cost no training."""
MIN_SLICE = 10
"""Rows of a slice that is worth a word."""
MAX_STEPS = 3
LEAST_LOSSES = 4
"""Validation losses from which their course says something."""
CLEARLY = 0.02
"""Share by which a loss has clearly risen, or fallen in the last quarter."""
ASK_MORE = (
    "ask more general questions (a file of them in evaluation.general): so few cannot show that "
    "the ability is kept"
)
LEARN_LESS = (
    "move the model less: fewer epochs, a lower learning rate or rank, or general rows among the "
    "training rows; or set evaluation.general_margin, if it is wanted for its task alone"
)


def with_decision(
    result: EvaluationResult, scorers: Sequence[AnyScorer], evaluation: Judging, *, seed: int = 0
) -> EvaluationResult:
    """The result with the decision that its verdict leads to; as it is without a verdict."""
    verdict = result.verdict
    if verdict is None:
        return result
    comparison = verdict.comparison
    metric = next(m for m in result.metrics if m.name == comparison.metric)
    named = {system.name: system for system in result.systems}
    rival, candidate = named[comparison.baseline], named[comparison.candidate]
    kind, why = _decide(metric, verdict, rival, evaluation.least_gain)
    general = result.general
    is_paid = kind == "promote" and general is not None and general.outcome != "kept"
    if is_paid:
        kind = "keep iterating"
    is_open = kind != "promote" and verdict.decision != "worse"
    steps = _rows_needed(metric, comparison) if is_open else []
    scorer = next((s for s in scorers if s.metric == metric), None)
    if scorer is not None:
        steps += _weakest(candidate, scorer, result, evaluation, seed)
    if is_paid and general is not None:
        is_within = general.outcome != "lost" and general.difference > -general.margin
        steps = [ASK_MORE if is_within else LEARN_LESS, *steps]
    decision = Decision(kind, (why, *_ability(general), *_broken(comparison)), tuple(steps))
    return replace(result, decision=decision)


def with_losses(result: EvaluationResult, losses: Sequence[tuple[int, float]]) -> EvaluationResult:
    """The result whose decision, unless it is to promote, also tells what validation losses say.

    `losses` are steps with the loss after them, step 0 before training.
    """
    decision = result.decision
    if decision is None or decision.kind == "promote" or LEARN_LESS in decision.next_steps:
        return result
    steps = (*decision.next_steps, *_from_losses(losses))
    return replace(result, decision=replace(decision, next_steps=steps))


def _from_losses(losses: Sequence[tuple[int, float]]) -> list[str]:
    if len(losses) < LEAST_LOSSES:
        return []
    last_step, last = losses[-1]
    best_step, best = min(losses, key=lambda point: point[1])
    before, earlier = [point for point in losses if 4 * point[0] <= 3 * last_step][-1]
    if last > best * (1 + CLEARLY):
        return [
            f"learn less long, or more gently: the validation loss rose from {best:.3f} after "
            f"step {best_step} to {last:.3f} at the end"
        ]
    if last < earlier * (1 - CLEARLY):
        return [
            f"learn longer: the validation loss still fell at the end, from {earlier:.3f} after "
            f"step {before} to {last:.3f}"
        ]
    return ["try other settings, such as learning rate and rank: luthier search recipe.yaml"]


def _decide(
    metric: Metric, verdict: Verdict, rival: SystemResult, least: float
) -> tuple[DecisionKind, str]:
    """The decision, and the reason for it."""
    low, high = _gain(metric, verdict.comparison)
    worth = format_difference(metric, least, signed=False)
    given_up: DecisionKind = "prompting is enough" if rival.kind in PROMPTS else "keep iterating"
    if verdict.decision == "better" and low is not None and low > least:
        more = f" by more than {worth}" if least else ""
        return "promote", f"it is better than {rival.name}{more}"
    if verdict.decision == "better":
        return "keep iterating", f"it is better than {rival.name}, but maybe by less than {worth}"
    if verdict.decision == "worse":
        return given_up, f"{rival.name} is better"
    if least and high is not None and high < least:
        return given_up, f"it gains less than {worth} over {rival.name}"
    return "not distinguishable", f"these rows cannot tell it from {rival.name}"


def _gain(metric: Metric, comparison: Comparison) -> tuple[float | None, float | None]:
    """Limits of the gain, turned so that more is better."""
    low, high = comparison.low, comparison.high
    if low is None or high is None:
        return None, None
    return (low, high) if metric.higher_is_better else (-high, -low)


def _ability(general: General | None) -> list[str]:
    if general is None or general.outcome == "kept":
        return []
    margin = f"{100 * general.margin:g} points of general ability"
    is_lost = general.outcome == "lost"
    return [f"more than {margin} are lost" if is_lost else f"more than {margin} may be lost"]


def _broken(comparison: Comparison) -> list[str]:
    number = len(comparison.broken)
    if not number:
        return []
    rows = "1 row is" if number == 1 else f"{number:,} rows are"
    return [f"{rows} worse than with {comparison.baseline}: look at them in the report"]


def _rows_needed(metric: Metric, comparison: Comparison) -> list[str]:
    if comparison.minimum_detectable is None:
        return [f"judge on more rows: {comparison.n} cannot show anything reliably"]
    smallest = format_difference(metric, comparison.minimum_detectable, signed=False)
    return [f"judge on more rows if less than {smallest} matters: {comparison.n} cannot show it"]


def _weakest(
    system: SystemResult,
    scorer: AnyScorer,
    result: EvaluationResult,
    evaluation: Judging,
    seed: int,
) -> list[str]:
    """Slices that are worse than the whole: where more rows would help most."""
    metric, whole = scorer.metric, system.estimates[scorer.metric.name].value
    if whole is None:
        return []

    def parts(confidence: float) -> list[Slice]:
        settings = evaluation.model_copy(update={"confidence": confidence})
        found = slices_of(system, scorer, result.examples, settings, seed=seed).parts
        return [part for part in found if part.num_rows >= MIN_SLICE]

    # Of many slices some would look weak by chance (Bonferroni).
    doubt = (1 - evaluation.confidence) / max(len(parts(evaluation.confidence)), 1)
    weak = [part for part in parts(1 - doubt) if _is_weak(part, metric, whole)]
    weak.sort(key=lambda part: abs((part.estimate.value or 0.0) - whole), reverse=True)
    return [
        f"learn from more rows with {part.column} {part.value!r}: {metric.title} is "
        f"{format_value(metric, part.estimate.value or 0.0)} on {part.num_rows} rows, "
        f"{format_value(metric, whole)} on all"
        for part in weak[:MAX_STEPS]
    ]


def _is_weak(part: Slice, metric: Metric, whole: float) -> bool:
    """Whether the whole's value lies outside of the slice's interval, on the better side."""
    low, high = part.estimate.low, part.estimate.high
    if low is None or high is None:
        return False
    return high < whole if metric.higher_is_better else low > whole
