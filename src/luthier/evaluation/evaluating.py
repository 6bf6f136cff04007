"""Systems are run on the held-out rows, and the finished runs concluded.

`run_system` asks one predictor and scores its answers; `conclude` compares finished systems and
decides. They are separate because the baselines run before anything is trained, and their results
are kept and read back. The rows must be the same, in the same order, for every system; anything
else is an error, never a quiet join.
"""

import time
from collections.abc import Callable, Mapping, Sequence
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
from luthier.evaluation.duels import METRIC, PairJudge, with_preferences
from luthier.evaluation.grading import GradedScorer
from luthier.evaluation.scorers import KnownScorer, RowScorer
from luthier.evaluation.statistics import holm
from luthier.evaluation.values import (
    LEAST_CONSISTENCY,
    Comparison,
    Duel,
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
from luthier.recipe import JUDGE, Judging, settled

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
    groups_of(examples, evaluation)  # raises before anything is asked
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
    estimates = _estimates(scorers, scores, predictions, examples, evaluation, seed=seed)
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


def rescored(
    system: SystemResult,
    places: Sequence[int],
    examples: Sequence[Example],
    scorers: Sequence[AnyScorer],
    evaluation: Judging,
    *,
    seed: int = 0,
) -> SystemResult:
    """A system on some of the rows it answered, as if it had been asked no others.

    `places` are those of the rows among its answers, `examples` the rows. Scores of rows are taken
    from it, numbers over all rows are computed anew.
    """
    predictions = tuple(
        replace(system.predictions[place], example_id=example.id)
        for place, example in zip(places, examples, strict=True)
    )
    scores = {name: tuple(own[place] for place in places) for name, own in system.scores.items()}
    estimates = _estimates(scorers, scores, predictions, examples, evaluation, seed=seed)
    return replace(
        system, predictions=predictions, scores=scores, estimates=estimates,
        perplexity=perplexity(predictions),
    )  # fmt: skip


def _estimates(
    scorers: Sequence[AnyScorer],
    scores: Mapping[str, Sequence[float | None]],
    predictions: Sequence[Prediction],
    examples: Sequence[Example],
    evaluation: Judging,
    *,
    seed: int,
) -> dict[str, Estimate]:
    """What each metric comes to over all rows."""
    groups = groups_of(examples, evaluation)
    return {
        scorer.metric.name: estimate_whole(scorer, predictions, examples, evaluation, seed=seed)
        if isinstance(scorer, WholeScorer)
        else estimate(
            scorer.metric, scores[scorer.metric.name], evaluation, seed=seed, groups=groups
        )
        for scorer in scorers
    }


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
    judge: PairJudge | None = None,
) -> EvaluationResult:
    """Compare the system in question with its strongest rival on every metric, and decide.

    Where there are more rivals, also with each of them on the primary metric. A judge adds a
    metric: whose answer it prefers. Without a system in question or a rival there is nothing to
    decide: no comparisons, no verdict.
    The verdict's comparison stands first; it is the one claim made beforehand, so only the others
    carry p-values adjusted for their number.
    """
    metrics = [scorer.metric for scorer in scorers]
    check_examples(examples)
    check_systems(examples, systems, metrics)
    candidate = next((system for system in systems if system.is_candidate), None)
    rivals = [system for system in systems if system.kind in RIVALS]
    duels: list[Duel] = []
    if not (candidate and rivals):
        judge = None
    pairs = {rival.name: (rival, candidate) for rival in rivals if candidate}
    if judge and candidate:
        scorers, metrics = [*scorers, KnownScorer(METRIC)], [*metrics, METRIC]
        duels, found = with_preferences(examples, candidate, rivals, judge, evaluation)
        pairs = {rival.name: (rival, own) for rival, own in found}
    primary = _primary(metrics, evaluation)
    order = [primary, *(metric for metric in metrics if metric != primary)]
    comparisons: tuple[Comparison, ...] = ()
    verdict: Verdict | None = None
    if pairs:
        strongest = strongest_baseline([rival for rival, _ in pairs.values()], order)
        if strongest is None:
            raise _unscored(primary)
        first = pairs.pop(strongest.name)
        others = [pair for pair in pairs.values() if pair[0].kind == "rival"]
        compared = [_Pair(*p, tuple(examples), evaluation, seed) for p in (first, *others)]
        comparisons = _compare_all(primary, scorers, compared)
        doubt = _doubt(primary, duels, strongest)
        verdict = decide(primary, *first, comparisons[0], evaluation.confidence, doubt)
        scored = {system.name: system for system in (*first, *(r for r, _ in pairs.values()))}
        systems = [scored.get(system.name, system) for system in systems]
    return EvaluationResult(
        metrics=tuple(metrics),
        primary=primary.name,
        examples=tuple(examples),
        systems=tuple(systems),
        comparisons=comparisons,
        verdict=verdict,
        duels=tuple(duels),
    )


def _doubt(primary: Metric, duels: Sequence[Duel], rival: SystemResult) -> str:
    """Why a verdict by the judge is none."""
    duel = next((duel for duel in duels if duel.rival == rival.name), None)
    if primary.name != JUDGE or duel is None or duel.is_trusted or duel.consistency.value is None:
        return ""
    return (
        f"The judge changed its mind with the order of the answers in all but "
        f"{100 * duel.consistency.value:.0f} % of rows; below {100 * LEAST_CONSISTENCY:.0f} % "
        "nothing is concluded from it."
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
