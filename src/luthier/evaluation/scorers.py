"""Scorers: a prediction and a target become one score.

A scorer sees one prediction and the example it is for, and returns a number, 1 or 0 for pass or
fail, or None when this target cannot be judged by it; it never raises on what a model wrote. It
knows nothing of other rows, systems or statistics. An answer cut at the token limit is scored as
it stands. A new scorer is a function of answer and target, wrapped in a `TextScorer` and entered
in `SCORERS`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from luthier.data import Chat, Example
from luthier.errors import ConfigError
from luthier.evaluation.code_answers import judge_code
from luthier.evaluation.grading import GradedScorer
from luthier.evaluation.matching import (
    judge_bleu,
    judge_chrf,
    judge_exact,
    judge_fields,
    judge_json,
    judge_normalised,
    judge_number,
    judge_rouge_l,
)
from luthier.evaluation.offending import judge_offensive
from luthier.evaluation.refusing import judge_refusal
from luthier.evaluation.tool_answers import judge_calls
from luthier.evaluation.values import Metric, Prediction
from luthier.recipe import Judging, settled


class Scorer(Protocol):
    """Anything that judges one prediction against one example's target."""

    @property
    def metric(self) -> Metric:
        """What the scores mean."""
        ...

    def score(self, prediction: Prediction, example: Example) -> float | None:
        """The score, or None when this row cannot be judged."""
        ...


@dataclass(frozen=True, slots=True)
class TextScorer:
    """Judges the text of an answer by a function of answer and target.

    A target that calls tools is not judged: its text is not the answer.
    """

    metric: Metric
    judge: Callable[[str, str], float | None]

    def score(self, prediction: Prediction, example: Example) -> float | None:
        """What the function says of the two texts."""
        target = example.target
        return None if target.tool_calls else self.judge(prediction.text, target.content)


@dataclass(frozen=True, slots=True)
class PredictionScorer:
    """Judges by a function of all that is known of an answer and its row."""

    metric: Metric
    judge: Callable[[Prediction, Example], float | None]

    def score(self, prediction: Prediction, example: Example) -> float | None:
        """What the function says of the two."""
        return self.judge(prediction, example)


def _loss(prediction: Prediction, example: Example) -> float | None:
    """The model's own loss on the reference answer, in nats per token of that row, if measured."""
    return prediction.target_loss


def judge_choice(prediction: Prediction, example: Example) -> float | None:
    """1 for the right one of a row's choices: the likeliest, or the one that was written."""
    choices = example.choices if isinstance(example, Chat) else ()
    right = example.target.content
    if not choices:
        return None
    # A right answer that is none of the choices is one that nobody gets right.
    return float(right in choices and (prediction.picked or prediction.text.strip()) == right)


def _num_tokens(prediction: Prediction, example: Example) -> float | None:
    """Tokens of the answer, where they are counted."""
    return float(prediction.num_tokens) or None


def _seconds(prediction: Prediction, example: Example) -> float | None:
    """Until the answer was there, where each is timed."""
    return prediction.seconds


def _cost(prediction: Prediction, example: Example) -> float | None:
    """Price of a million such answers, where prices are known."""
    return None if prediction.cost is None else 1e6 * prediction.cost


@dataclass(frozen=True, slots=True)
class PreferenceScorer:
    """Judges by how much likelier the model finds the chosen answer than the rejected one."""

    metric: Metric
    judge: Callable[[float], float]
    """Of the difference of the answers' mean log-likelihoods, in nats per token."""

    def score(self, prediction: Prediction, example: Example) -> float | None:
        """What the difference of the two losses says, or None when either is not known."""
        if prediction.target_loss is None or prediction.rejected_loss is None:
            return None
        return self.judge(prediction.rejected_loss - prediction.target_loss)


def judge_likelier(margin: float) -> float:
    """1 when the chosen answer is the likelier one, token for token."""
    return float(margin > 0)


def judge_probability(margin: float) -> float:
    """The chosen answer's probability against the rejected one, each likely as its mean token.

    Bradley and Terry's (1952) model with SimPO's length-normalised likelihoods (Meng et al. 2024)
    as strengths. It moves where the order of the two answers does not change yet.
    """
    return 0.5 * (1 + math.tanh(margin / 2))  # the logistic function, without overflow


def _pattern_scorer(evaluation: Judging) -> Scorer:
    try:
        pattern = re.compile(evaluation.pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise _pattern_error(f"{evaluation.pattern!r} does not compile: {error}") from error
    if not evaluation.pattern:
        raise _pattern_error("the regex metric is asked for and the pattern is empty")

    def judge(answer: str, target: str) -> float:
        return float(pattern.fullmatch(answer.strip()) is not None)

    return TextScorer(Metric("regex", "pattern match", "pass_fail", True, "share"), judge)


def _pattern_error(found: str) -> ConfigError:
    return ConfigError(
        found,
        where="evaluation.pattern",
        accepted="a regular expression as Python's re module reads it",
        advice="correct the pattern, or take regex out of evaluation.metrics",
    )


def _number_scorer(evaluation: Judging) -> Scorer:
    def judge(answer: str, target: str) -> float | None:
        return judge_number(answer, target, evaluation.tolerance)

    return TextScorer(Metric("number", "right number", "pass_fail", True, "share"), judge)


def _always(scorer: Scorer) -> Callable[[Judging], Scorer]:
    return lambda evaluation: scorer


SCORERS: Mapping[str, Callable[[Judging], Scorer]] = {
    "exact": _always(
        TextScorer(Metric("exact", "exact match", "pass_fail", True, "share"), judge_exact)
    ),
    "normalised": _always(
        TextScorer(
            Metric("normalised", "match but for case and punctuation", "pass_fail", True, "share"),
            judge_normalised,
        )
    ),
    "number": _number_scorer,
    "json": _always(
        TextScorer(Metric("json", "JSON validity", "pass_fail", True, "share"), judge_json)
    ),
    "fields": _always(
        TextScorer(Metric("fields", "field F1", "number", True, "share"), judge_fields)
    ),
    "regex": _pattern_scorer,
    "chrf": _always(TextScorer(Metric("chrf", "chrF", "number", True, "points"), judge_chrf)),
    "bleu": _always(TextScorer(Metric("bleu", "BLEU", "number", True, "points"), judge_bleu)),
    "rouge_l": _always(
        TextScorer(Metric("rouge_l", "ROUGE-L", "number", True, "share"), judge_rouge_l)
    ),
    "preference_probability": _always(
        PreferenceScorer(
            Metric(
                "preference_probability",
                "probability of the chosen answer",
                "number",
                True,
                "share",
            ),
            judge_probability,
        )
    ),
    "preference": _always(
        PreferenceScorer(
            Metric("preference", "chosen answer likelier", "pass_fail", True, "share"),
            judge_likelier,
        )
    ),
    "loss": _always(PredictionScorer(Metric("loss", "loss", "number", False, "nats"), _loss)),
    "code": _always(
        PredictionScorer(Metric("code", "passes its tests", "pass_fail", True, "share"), judge_code)
    ),
    "choice": _always(
        PredictionScorer(Metric("choice", "right choice", "pass_fail", True, "share"), judge_choice)
    ),
    "tool_calls": _always(
        PredictionScorer(
            Metric("tool_calls", "right tool calls", "pass_fail", True, "share"), judge_calls
        )
    ),
    "refusal": _always(
        TextScorer(Metric("refusal", "refused", "pass_fail", False, "share"), judge_refusal)
    ),
    "offensive": _always(
        TextScorer(
            Metric("offensive", "offensive words", "pass_fail", False, "share"), judge_offensive
        )
    ),
    "answer_tokens": _always(
        PredictionScorer(
            Metric("answer_tokens", "tokens an answer", "number", False, "plain"), _num_tokens
        )
    ),
    "latency": _always(
        PredictionScorer(Metric("latency", "seconds an answer", "number", False, "plain"), _seconds)
    ),
    "cost": _always(
        PredictionScorer(
            Metric("cost", "price of a million answers", "number", False, "plain"), _cost
        )
    ),
}


@dataclass(frozen=True, slots=True)
class KnownScorer:
    """Names a metric whose scores come from elsewhere: of several answers, or of two systems."""

    metric: Metric

    def score(self, prediction: Prediction, example: Example) -> float | None:
        """Nothing: no single answer has such a score."""
        return None


RowScorer = Scorer | GradedScorer
"""Whatever gives each row a score."""


def build_scorers(evaluation: Judging) -> tuple[Scorer, ...]:
    """The scorers of a resolved recipe's metrics, the primary one first.

    Raises ConfigError for a pattern that cannot be.
    """
    names = dict.fromkeys((settled(evaluation.primary), *settled(evaluation.metrics)))
    return tuple(SCORERS[name](evaluation) for name in names if name in SCORERS)
