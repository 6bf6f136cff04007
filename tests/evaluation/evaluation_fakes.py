"""Chats, a scripted predictor, and finished systems, made by hand for the tests of this room."""

from collections import deque
from collections.abc import Mapping, Sequence

from luthier.data import Chat, Example, Message, Place, ToolCall
from luthier.evaluation import Kind, Metric, Prediction, SystemResult, estimate
from luthier.recipe import Evaluation

EXACT = Metric("exact", "exact match", "pass_fail", True, "share")
FIELDS = Metric("fields", "field F1", "number", True, "share")
CHRF = Metric("chrf", "chrF", "number", True, "points")
LOSS = Metric("loss", "loss", "number", False, "nats")


def make_evaluation(*metrics: str, **others: object) -> Evaluation:
    """A resolved section: these metrics, the first of them the primary one."""
    return Evaluation.model_validate({"metrics": metrics, "primary": metrics[0], **others})


SETTINGS = make_evaluation("exact", "loss", resamples=500)


def make_chat(example_id: str, target: str, *, calls_tool: bool = False) -> Chat:
    calls = (ToolCall("call_1", "look_up", "{}"),) if calls_tool else ()
    messages = (Message("user", "question"), Message("assistant", target, tool_calls=calls))
    return Chat(example_id, Place("test.jsonl", 1), messages)


class ScriptedPredictor:
    """Answers with what was enqueued, one answer per example."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_asked = 0
        self._queue: deque[tuple[str, float | None, bool]] = deque()

    def enqueue(self, text: str, *, loss: float | None = None, stopped: bool = True) -> None:
        self._queue.append((text, loss, stopped))

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        self.num_asked += len(examples)
        answers = [self._queue.popleft() for _ in examples]
        return [
            Prediction(example.id, text, stopped, len(text), loss)
            for example, (text, loss, stopped) in zip(examples, answers, strict=True)
        ]


def make_system(
    name: str,
    kind: Kind,
    scores: Mapping[Metric, Sequence[float | None]],
    evaluation: Evaluation = SETTINGS,
) -> SystemResult:
    num_rows = len(next(iter(scores.values())))
    return SystemResult(
        name,
        kind,
        tuple(Prediction(f"row-{index}", "", True, 1) for index in range(num_rows)),
        {metric.name: tuple(values) for metric, values in scores.items()},
        {m.name: estimate(m, values, evaluation, seed=0) for m, values in scores.items()},
        seconds=1.0,
        perplexity=None,
    )


def passes(num_passed: int, n: int) -> Sequence[float]:
    return [1.0] * num_passed + [0.0] * (n - num_passed)
