"""Systems are run on the held-out rows, and the finished runs concluded.

`run_system` asks one predictor and scores its answers; `conclude` compares finished systems and
decides. They are separate because the baselines run before anything is trained, and their results
are kept and read back. The rows must be the same, in the same order, for every system; anything
else is an error, never a quiet join.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from luthier.data import Example
from luthier.errors import EvaluationError
from luthier.evaluation.checks import (
    check_examples,
    check_predictions,
    check_scorable,
    check_systems,
)
from luthier.evaluation.comparing import compare, estimate, groups_of, perplexity
from luthier.evaluation.deciding import RIVALS, decide, strongest_baseline
from luthier.evaluation.grading import GradedScorer
from luthier.evaluation.scorers import RowScorer
from luthier.evaluation.statistics import holm
from luthier.evaluation.values import (
    Comparison,
    Estimate,
    EvaluationResult,
    Kind,
    Metric,
    Prediction,
    Predictor,
    SystemResult,
    Verdict,
)
from luthier.evaluation.wholes import WholeScorer, compare_whole, estimate_whole
from luthier.recipe import Judging, settled

AnyScorer = RowScorer | WholeScorer


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
    evaluation: Judging,
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
    by_row = [s for s in scorers if not isinstance(s, WholeScorer | GradedScorer)]
    check_scorable(by_row, examples)
    groups = groups_of(examples, evaluation)
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
    unscored: dict[str, str] = {}
    for scorer in scorers:
        if isinstance(scorer, GradedScorer):
            found, why = _grades(scorer, predictions, examples)
            scores[scorer.metric.name] = found
            unscored |= {scorer.metric.name: why} if why else {}
    estimates = {
        scorer.metric.name: estimate_whole(scorer, predictions, examples, evaluation, seed=seed)
        if isinstance(scorer, WholeScorer)
        else estimate(
            scorer.metric, scores[scorer.metric.name], evaluation, seed=seed, groups=groups
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
        unscored,
    )


def _grades(
    scorer: GradedScorer, predictions: Sequence[Prediction], examples: Sequence[Example]
) -> tuple[tuple[float | None, ...], str]:
    """A grader's scores of all rows that were answered, and what it could not judge.

    Raises EvaluationError where it could judge none.
    """
    answered = [i for i, prediction in enumerate(predictions) if not prediction.error]
    grades = scorer.score_all([predictions[i] for i in answered], [examples[i] for i in answered])
    scores: list[float | None] = [None] * len(predictions)
    for i, grade in zip(answered, grades, strict=True):
        scores[i] = grade.score
    failed = [grade.why for grade in grades if grade.score is None]
    if failed and len(failed) == len(grades):
        raise EvaluationError(
            f"none of {len(grades)} answers could be judged; the first: {failed[0]}",
            where=f"evaluation.graders {scorer.metric.name}",
            advice="correct the grader; the answers are kept",
        )
    return tuple(scores), f"{len(failed)} of {len(grades)}: {failed[0]}" if failed else ""


def conclude(
    examples: Sequence[Example],
    systems: Sequence[SystemResult],
    scorers: Sequence[AnyScorer],
    evaluation: Judging,
    *,
    seed: int = 0,
) -> EvaluationResult:
    """Compare the system in question with its strongest rival on every metric, and decide.

    Where there are more rivals, also with each of them on the primary metric. Without a system in
    question or a rival there is nothing to decide: no comparisons, no verdict.
    The verdict's comparison stands first; it is the one claim made beforehand, so only the others
    carry p-values adjusted for their number.
    """
    metrics = [scorer.metric for scorer in scorers]
    check_examples(examples)
    check_systems(examples, systems, metrics)
    primary = _primary(metrics, evaluation)
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict | None = None
    candidate = next((system for system in systems if system.is_candidate), None)
    rivals = [system for system in systems if system.kind in RIVALS]
    if candidate and rivals:
        others = [metric for metric in metrics if metric != primary]
        baseline = strongest_baseline(systems, [primary, *others])
        if baseline is None:
            raise _unscored(primary)
        pairs = [
            _Pair(rival, candidate, tuple(examples), evaluation, seed)
            for rival in (baseline, *(r for r in rivals if r is not baseline and r.kind == "rival"))
        ]
        comparisons = _compare_all(primary, scorers, pairs)
        verdict = decide(primary, baseline, candidate, comparisons[0], evaluation.confidence)
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
    evaluation: Judging,
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
    evaluation: Judging
    seed: int

    def compare(self, scorer: AnyScorer) -> Comparison | None:
        """None when no row has a score under both."""
        if isinstance(scorer, WholeScorer):
            return compare_whole(
                scorer, self.baseline, self.candidate, self.examples, self.evaluation,
                seed=self.seed,
            )  # fmt: skip
        return compare(
            scorer.metric, self.baseline, self.candidate, self.evaluation, seed=self.seed,
            groups=groups_of(self.examples, self.evaluation),
        )  # fmt: skip


def _compare_all(
    primary: Metric, scorers: Sequence[AnyScorer], pairs: Sequence[_Pair]
) -> tuple[Comparison, ...]:
    """Of the first pair on all metrics, the primary one first; of the others on that one."""
    by_primary = next(scorer for scorer in scorers if scorer.metric.name == primary.name)
    first = pairs[0].compare(by_primary)
    if first is None:
        raise _unscored(primary)
    looks = [pairs[0].compare(s) for s in scorers if s.metric.name != primary.name]
    looks += [pair.compare(by_primary) for pair in pairs[1:]]
    others = [comparison for comparison in looks if comparison is not None]
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
        f"no row has a score for {primary.name} under both the system in question and a rival",
        where=f"evaluation.primary {primary.name}",
        accepted="a metric that every system's answers can be scored with",
        advice="choose another primary metric",
    )


def _primary(metrics: Sequence[Metric], evaluation: Judging) -> Metric:
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
