"""Answers in a file: those that a system gave, so that it can be judged after it is gone.

A line holds what a row asked (`messages`, `prompt` or its `id`) and the `answer`. `recorded` makes
lines of predictions; `RecordedPredictor` finds them again, by what rows ask, whatever their ids.
Knows no files.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luthier.data import Example, Message, prompt_key
from luthier.errors import EvaluationError
from luthier.evaluation.values import Prediction

KEPT_OF_ANSWERS = (
    "stopped", "num_tokens", "target_loss", "target_tokens", "rejected_loss", "prompt_tokens",
    "seconds", "value", "picked",
)  # fmt: skip
"""Fields of a prediction that a line holds under their own names, beside text and calls."""
NO_ANSWER = "there is no recorded answer"


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer, and what is known of what it answers."""

    prediction: Prediction
    """Its `example_id` is the id in the file, which may be empty."""
    asked: str
    """Key of the question as `prompt_key` makes it, or nothing."""
    draw: int = 0
    """Which of several answers to the row it is."""


def recorded(
    examples: Sequence[Example], predictions: Sequence[Prediction], draw: int = 0
) -> list[dict[str, Any]]:
    """A line for each row that was answered: what it asked, and the answer."""
    return [
        {
            "id": example.id,
            "draw": draw,
            "messages": [_wire(message) for message in example.prompt],
            "answer": prediction.text,
            "tool_calls": [list(call) for call in prediction.tool_calls],
            **_known(prediction),
        }
        for example, prediction in zip(examples, predictions, strict=True)
        if not prediction.error
    ]  # fmt: skip


def _known(prediction: Prediction) -> dict[str, Any]:
    values = {name: getattr(prediction, name) for name in KEPT_OF_ANSWERS}
    return {name: value for name, value in values.items() if value not in (None, "")}


def _wire(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


@dataclass
class RecordedPredictor:
    """Gives recorded answers to the rows that they were given to."""

    name: str
    answers: Iterable[RecordedAnswer]
    where: str
    _by_id: dict[str, Prediction] = field(default_factory=dict)
    _by_question: Mapping[str, list[Prediction]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for answer in self.answers:
            if answer.asked:
                self._by_question[answer.asked].append(answer.prediction)
            elif answer.prediction.example_id:
                self._by_id[answer.prediction.example_id] = answer.prediction

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order; rows without a recorded answer say so.

        Of several answers to one question each is given once, in order, and the last one again.
        Raises EvaluationError when no row has one.
        """
        waiting = {key: list(found) for key, found in self._by_question.items()}
        predictions = [self._of(example, waiting) for example in examples]
        if all(prediction.error for prediction in predictions):
            raise EvaluationError(
                f"no row of {len(examples)} is among what was answered",
                where=self.where,
                accepted="answers to these rows, found by messages, prompt or id",
            )
        return predictions

    def _of(self, example: Example, waiting: dict[str, list[Prediction]]) -> Prediction:
        found = waiting.get(prompt_key(example))
        if found:
            chosen: Prediction | None = found.pop(0) if len(found) > 1 else found[0]
        else:
            chosen = self._by_id.get(example.id)
        if chosen is None:
            return Prediction(example.id, "", stopped=False, num_tokens=0, error=NO_ANSWER)
        return replace(chosen, example_id=example.id)
