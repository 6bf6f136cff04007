"""Systems are run on the held-out rows, and the finished runs concluded.

`run_system` asks one predictor and scores its answers; `conclude` compares finished systems and
decides. They are separate because the baselines run before anything is trained, and their results
are kept and read back. The rows must be the same, in the same order, for every system; anything
else is an error, never a quiet join.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from luthier.data import Example
from luthier.errors import EvaluationError
from luthier.evaluation.checks import (
    check_examples,
    check_predictions,
    check_scorable,
    check_systems,
)
from luthier.evaluation.comparing import compare, estimate, perplexity
from luthier.evaluation.deciding import PROMPTED, decide, strongest_prompt
from luthier.evaluation.scorers import Scorer
from luthier.evaluation.statistics import holm
from luthier.evaluation.values import (
    Comparison,
    Estimate,
    EvaluationResult,
    Metric,
    Predictor,
    SystemResult,
    Verdict,
)
from luthier.recipe import Evaluation, settled

Kind = Literal["zero_shot", "few_shot", "tuned", "other"]


@dataclass(frozen=True, slots=True)
class SystemStarted:
    """A predictor is about to answer this many rows."""

    name: str
    num_examples: int


@dataclass(frozen=True, slots=True)
class SystemFinished:
    """A predictor's answers are scored."""

    name: str
    seconds: float
    estimates: dict[str, Estimate]


Observe = Callable[[SystemStarted | SystemFinished], None]


def run_system(
    predictor: Predictor,
    kind: Kind,
    examples: Sequence[Example],
    scorers: Sequence[Scorer],
    evaluation: Evaluation,
    *,
    seed: int = 0,
    observe: Observe = lambda event: None,
    clock: Callable[[], float] = time.perf_counter,
) -> SystemResult:
    """Ask a predictor every held-out row, and score what it says.

    The seconds are those of the prediction alone. Raises before asking when there is no row, or
    when a metric cannot judge any of them.
    """
    check_examples(examples)
    check_scorable(scorers, examples)
    observe(SystemStarted(predictor.name, len(examples)))
    started = clock()
    predictions = predictor.predict(examples)
    seconds = clock() - started
    check_predictions(predictor.name, examples, predictions)
    scores = {
        scorer.metric.name: tuple(
            scorer.score(prediction, example.target)
            for prediction, example in zip(predictions, examples, strict=True)
        )
        for scorer in scorers
    }
    estimates = {
        scorer.metric.name: estimate(
            scorer.metric, scores[scorer.metric.name], evaluation, seed=seed
        )
        for scorer in scorers
    }
    observe(SystemFinished(predictor.name, seconds, estimates))
    return SystemResult(
        predictor.name,
        kind,
        tuple(predictions),
        scores,
        estimates,
        seconds,
        perplexity(predictions),
    )


def conclude(
    examples: Sequence[Example],
    systems: Sequence[SystemResult],
    metrics: Sequence[Metric],
    evaluation: Evaluation,
    *,
    seed: int = 0,
) -> EvaluationResult:
    """Compare the tuned system with the strongest prompt on every metric, and decide.

    Without a tuned or a prompted system there is nothing to decide: no comparisons, no verdict.
    The verdict's comparison stands first; it is the one claim made beforehand, so only the others
    carry p-values adjusted for their number.
    """
    check_examples(examples)
    check_systems(examples, systems, metrics)
    primary = _primary(metrics, evaluation)
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict | None = None
    tuned = next((system for system in systems if system.kind == "tuned"), None)
    if tuned and any(system.kind in PROMPTED for system in systems):
        others = [metric for metric in metrics if metric != primary]
        baseline = strongest_prompt(systems, [primary, *others])
        if baseline is None:
            raise _unscored(primary)
        comparisons = _compare_all(primary, metrics, baseline, tuned, evaluation, seed)
        verdict = decide(primary, baseline, tuned, comparisons[0], evaluation.confidence)
    return EvaluationResult(
        metrics=tuple(metrics),
        primary=primary.name,
        examples=tuple(examples),
        systems=tuple(systems),
        comparisons=comparisons,
        verdict=verdict,
    )


def evaluate(
    predictors: Sequence[tuple[Predictor, Kind]],
    examples: Sequence[Example],
    scorers: Sequence[Scorer],
    evaluation: Evaluation,
    *,
    seed: int = 0,
    observe: Observe = lambda event: None,
    clock: Callable[[], float] = time.perf_counter,
) -> EvaluationResult:
    """Run every system and conclude, for when all of them are at hand."""
    systems = [
        run_system(
            predictor, kind, examples, scorers, evaluation, seed=seed, observe=observe, clock=clock
        )
        for predictor, kind in predictors
    ]
    metrics = [scorer.metric for scorer in scorers]
    return conclude(examples, systems, metrics, evaluation, seed=seed)


def _compare_all(
    primary: Metric,
    metrics: Sequence[Metric],
    baseline: SystemResult,
    tuned: SystemResult,
    evaluation: Evaluation,
    seed: int,
) -> tuple[Comparison, ...]:
    first = compare(primary, baseline, tuned, evaluation, seed=seed)
    if first is None:
        raise _unscored(primary)
    others = [
        comparison
        for metric in metrics
        if metric.name != primary.name
        and (comparison := compare(metric, baseline, tuned, evaluation, seed=seed))
    ]
    adjusted = holm([comparison.p_value for comparison in others])
    return (
        first,
        *(
            replace(comparison, adjusted_p_value=p_value)
            for comparison, p_value in zip(others, adjusted, strict=True)
        ),
    )


def _unscored(primary: Metric) -> EvaluationError:
    return EvaluationError(
        f"no row has a score for {primary.name} under both the tuned model and a prompt",
        where=f"evaluation.primary {primary.name}",
        accepted="a metric that every system's answers can be scored with",
        advice="choose another primary metric",
    )


def _primary(metrics: Sequence[Metric], evaluation: Evaluation) -> Metric:
    name = settled(evaluation.primary)
    for metric in metrics:
        if metric.name == name:
            return metric
    raise EvaluationError(
        f"the primary metric {name} was not computed",
        where="evaluation.primary",
        accepted=", ".join(metric.name for metric in metrics),
        advice="choose one of these, or evaluate again with it",
    )
