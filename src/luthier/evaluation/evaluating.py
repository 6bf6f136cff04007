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
from luthier.evaluation.deciding import BASELINES, decide, strongest_baseline
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
from luthier.evaluation.wholes import WholeScorer, compare_whole, estimate_whole
from luthier.recipe import Evaluation, settled

Kind = Literal["zero_shot", "few_shot", "baseline", "tuned", "other"]
AnyScorer = Scorer | WholeScorer


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
    scorers: Sequence[AnyScorer],
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
    by_row = [scorer for scorer in scorers if not isinstance(scorer, WholeScorer)]
    check_scorable(by_row, examples)
    observe(SystemStarted(predictor.name, len(examples)))
    started = clock()
    predictions = predictor.predict(examples)
    seconds = clock() - started
    check_predictions(predictor.name, examples, predictions)
    scores = {
        scorer.metric.name: tuple(
            None if prediction.error else scorer.score(prediction, example)
            for prediction, example in zip(predictions, examples, strict=True)
        )
        for scorer in by_row
    }
    estimates = {
        scorer.metric.name: estimate_whole(scorer, predictions, examples, evaluation, seed=seed)
        if isinstance(scorer, WholeScorer)
        else estimate(scorer.metric, scores[scorer.metric.name], evaluation, seed=seed)
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
    scorers: Sequence[AnyScorer],
    evaluation: Evaluation,
    *,
    seed: int = 0,
) -> EvaluationResult:
    """Compare the tuned system with the strongest baseline on every metric, and decide.

    Without a tuned system or a baseline there is nothing to decide: no comparisons, no verdict.
    The verdict's comparison stands first; it is the one claim made beforehand, so only the others
    carry p-values adjusted for their number.
    """
    metrics = [scorer.metric for scorer in scorers]
    check_examples(examples)
    check_systems(examples, systems, metrics)
    primary = _primary(metrics, evaluation)
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict | None = None
    tuned = next((system for system in systems if system.kind == "tuned"), None)
    if tuned and any(system.kind in BASELINES for system in systems):
        others = [metric for metric in metrics if metric != primary]
        baseline = strongest_baseline(systems, [primary, *others])
        if baseline is None:
            raise _unscored(primary)
        pair = _Pair(baseline, tuned, tuple(examples), evaluation, seed)
        comparisons = _compare_all(primary, scorers, pair)
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
    scorers: Sequence[AnyScorer],
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
    return conclude(examples, systems, scorers, evaluation, seed=seed)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two systems on the same rows."""

    baseline: SystemResult
    candidate: SystemResult
    examples: tuple[Example, ...]
    evaluation: Evaluation
    seed: int

    def compare(self, scorer: AnyScorer) -> Comparison | None:
        """None when no row has a score under both."""
        if isinstance(scorer, WholeScorer):
            return compare_whole(
                scorer, self.baseline, self.candidate, self.examples, self.evaluation,
                seed=self.seed,
            )  # fmt: skip
        return compare(
            scorer.metric, self.baseline, self.candidate, self.evaluation, seed=self.seed
        )


def _compare_all(
    primary: Metric, scorers: Sequence[AnyScorer], pair: _Pair
) -> tuple[Comparison, ...]:
    first = next(pair.compare(s) for s in scorers if s.metric.name == primary.name)
    if first is None:
        raise _unscored(primary)
    others = [
        comparison
        for scorer in scorers
        if scorer.metric.name != primary.name and (comparison := pair.compare(scorer))
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
        f"no row has a score for {primary.name} under both the tuned model and a baseline",
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
