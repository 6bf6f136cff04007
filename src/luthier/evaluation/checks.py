"""What must hold before answers are asked for, scored or compared; anything else is refused.

Examples, scorers, predictions and finished systems come in; nothing goes out but an error that
names the row or the system. A quiet join of answers with the wrong rows would make every number
after it wrong.
"""

from collections.abc import Sequence
from math import isfinite

from luthier.data import Example, Labelled, Pair, Preference, Query
from luthier.errors import ConfigError, EvaluationError
from luthier.evaluation.scorers import Scorer
from luthier.evaluation.values import Metric, Prediction, SystemResult

MAX_LISTED = 5


def check_examples(examples: Sequence[Example]) -> None:
    """There is at least one row, and no id comes twice."""
    if not examples:
        raise EvaluationError(
            "there is no held-out row",
            where="test split",
            accepted="at least one row",
            advice="raise data.test_share, or name a file as data.test",
        )
    if len({example.id for example in examples}) < len(examples):
        raise EvaluationError(
            "two held-out rows have the same id",
            where="test split",
            accepted="every id once",
            advice="give the rows different ids, or leave the id field out",
        )


def check_scorable(scorers: Sequence[Scorer], examples: Sequence[Example]) -> None:
    """Every metric can judge at least one of the rows, where answers are written."""
    if isinstance(examples[0], Labelled | Pair | Query):
        return  # metrics are chosen by the kind of rows
    for scorer in scorers:
        # A metric that cannot even judge the target as an answer can judge nothing.
        perfect = [scorer.score(_ideal(x), x) for x in examples]
        is_never_right = scorer.metric.name == "choice" and not any(perfect)
        if is_never_right or all(score is None for score in perfect):
            raise ConfigError(
                f"{scorer.metric.name} cannot judge any of the {len(examples)} held-out answers",
                where="evaluation.metrics",
                accepted="metrics that fit the answers (json and fields need JSON, choice needs "
                "choices that hold the answer, all but loss need text and not tool calls)",
                advice=f"take {scorer.metric.name} out, or leave evaluation.metrics to auto",
            )


def _ideal(example: Example) -> Prediction:
    """The prediction of a model that answers as the target does."""
    return Prediction(
        example.id,
        example.target.content,
        stopped=True,
        num_tokens=1,
        target_loss=0.0,
        tool_calls=tuple((call.name, call.arguments) for call in example.target.tool_calls),
        seconds=0.0,
        cost=0.0,
        rejected_loss=1.0 if isinstance(example, Preference) else None,
    )


def check_predictions(
    name: str, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> None:
    """One prediction per row, in order, with finite losses."""
    asked, answered = [x.id for x in examples], [p.example_id for p in predictions]
    if asked != answered:
        raise _mismatch(name, asked, answered)
    for prediction in predictions:
        if prediction.target_loss is not None and not isfinite(prediction.target_loss):
            raise EvaluationError(
                f"the loss on the reference answer is {prediction.target_loss}",
                where=f"{name}, row {prediction.example_id}",
                accepted="a finite number",
                advice="the weights are damaged or overflow; try runtime.dtype float32",
            )


def check_systems(
    examples: Sequence[Example], systems: Sequence[SystemResult], metrics: Sequence[Metric]
) -> None:
    """Finished systems are on these rows, fully scored, told apart, and one is tuned at most."""
    asked = [example.id for example in examples]
    for system in systems:
        answered = [prediction.example_id for prediction in system.predictions]
        if asked != answered:
            raise _mismatch(system.name, asked, answered)
        missing = [
            metric.name
            for metric in metrics
            if len(system.scores.get(metric.name, ())) != len(asked)
            and (metric.kind != "whole" or metric.name not in system.estimates)
        ]
        if missing:
            raise EvaluationError(
                f"there are no complete scores for {', '.join(missing)}",
                where=system.name,
                accepted="one score per held-out row and metric",
                advice="evaluate this system again",
            )
    if len({system.name for system in systems}) < len(systems):
        raise EvaluationError(
            "two systems have the same name",
            where="systems",
            accepted="every name once",
            advice="name the predictors apart",
        )
    if sum(system.is_candidate for system in systems) > 1:
        raise EvaluationError(
            "there is more than one tuned system",
            where="systems",
            accepted="the one checkpoint that the validation rows chose",
            advice="the test rows judge once; compare checkpoints on the validation rows",
        )


def _mismatch(name: str, asked: Sequence[str], answered: Sequence[str]) -> EvaluationError:
    differing = [
        f"row {position}: asked {before}, answered {after}"
        for position, (before, after) in enumerate(zip(asked, answered, strict=False), 1)
        if before != after
    ]
    return EvaluationError(
        f"{len(answered)} answers do not match {len(asked)} held-out rows",
        where=name,
        accepted="one prediction per row, in the order of the rows",
        advice="evaluate this system again on these rows",
        details=differing[:MAX_LISTED],
    )
