"""Rows side by side: what was asked, what was meant, what each system said.

A page holds a bounded number of rows, chosen so that every outcome is seen and broken rows come
first; the report's JSON holds all of them. Texts are cut for display only, and say so.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.data import Example, Message
from luthier.evaluation.values import EvaluationResult, Metric, SystemResult
from luthier.report.differences import MAX_CHARACTERS, Difference, compare_texts
from luthier.report.numbers import counted, metric_value
from luthier.report.pairing import OUTCOME_ORDER, Outcome, Pairing, outcome_titles, row_outcomes

MAX_ROWS = 40
"""Rows embedded in the page: enough to judge by eye, small enough to open at once."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a prompt, as shown."""

    role: str
    text: str
    num_hidden: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one system said: its score in words, notes, and the marked text."""

    system: str
    mark: str
    is_right: bool | None
    notes: tuple[str, ...]
    difference: Difference


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One test row with the answers of the compared systems."""

    id: str
    place: str
    outcome: Outcome | None
    outcome_title: str
    prompt: tuple[Turn, ...]
    reference: Turn
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """One choice of rows: how many there are, and how many of them the page holds."""

    outcome: Outcome
    title: str
    num_rows: int
    num_shown: int


@dataclass(frozen=True, slots=True)
class RowTable:
    """The rows of the page, their filters, and the system message they share, if any."""

    rows: tuple[SideBySide, ...]
    filters: tuple[Filter, ...]
    num_rows: int
    shared_system: Turn | None


def rows_side_by_side(
    evaluation: EvaluationResult, pairing: Pairing, limit: int = MAX_ROWS
) -> RowTable:
    """Choose rows and set the paired systems' answers beside the reference."""
    outcomes = row_outcomes(evaluation, pairing)
    titles = outcome_titles(pairing.metric)
    chosen = choose_rows(outcomes, limit)
    shared = shared_system_message([chat.prompt for chat in evaluation.examples])
    totals = Counter(outcomes)
    shown = Counter(outcomes[index] for index in chosen)
    filters = tuple(
        Filter(outcome, titles[outcome], totals[outcome], shown[outcome])
        for outcome in OUTCOME_ORDER
        if totals[outcome]
    )
    rows = tuple(
        _side_by_side(evaluation.examples[index], index, outcomes[index], pairing, shared)
        for index in chosen
    )
    system = as_turn(shared) if shared else None
    return RowTable(rows, filters, len(evaluation.examples), system)


def choose_rows(outcomes: Sequence[Outcome | None], limit: int) -> list[int]:
    """At most `limit` row numbers: one of each outcome in turn, then sorted by outcome."""
    waiting = {outcome: [i for i, o in enumerate(outcomes) if o == outcome] for outcome in
               (*OUTCOME_ORDER, None)}  # fmt: skip
    rounds = max(map(len, waiting.values()), default=0)
    in_turn = [
        rows[turn] for turn in range(rounds) for rows in waiting.values() if turn < len(rows)
    ]
    chosen = set(in_turn[:limit])
    return [row for rows in waiting.values() for row in rows if row in chosen]


def shared_system_message(prompts: Sequence[Sequence[Message]]) -> Message | None:
    """The system message that begins every prompt, when it is the same in all of them."""
    if not prompts or not prompts[0]:
        return None
    first = prompts[0][0]
    is_shared = len(prompts) > 1 and all(prompt and prompt[0] == first for prompt in prompts)
    return first if is_shared and first.role in ("system", "developer") else None


def message_text(message: Message) -> str:
    """What a message says: its content, then its calls as name(arguments), one a line."""
    calls = [f"{call.name}({call.arguments})" for call in message.tool_calls]
    return "\n".join(part for part in (message.content, *calls) if part)


def as_turn(message: Message) -> Turn:
    """A message as shown, cut at the display's limit."""
    text = message_text(message)
    return Turn(message.role, text[:MAX_CHARACTERS], max(0, len(text) - MAX_CHARACTERS))


def _side_by_side(
    example: Example, index: int, outcome: Outcome | None, pairing: Pairing, shared: Message | None
) -> SideBySide:
    titles = outcome_titles(pairing.metric)
    prompt = example.prompt[1:] if shared else example.prompt
    systems = [system for system in (pairing.baseline, pairing.candidate) if system]
    reference = message_text(example.target)
    place = str(example.place)
    return SideBySide(
        id=example.id,
        place="" if place == example.id else place,
        outcome=outcome,
        outcome_title=titles[outcome] if outcome else "",
        prompt=tuple(as_turn(message) for message in prompt),
        reference=as_turn(example.target),
        answers=tuple(_answer(system, index, pairing.metric, reference) for system in systems),
    )


def _answer(system: SystemResult, index: int, metric: Metric, reference: str) -> Answer:
    prediction = system.predictions[index]
    scores = system.scores.get(metric.name, ())
    score = scores[index] if index < len(scores) else None
    difference = compare_texts(reference, prediction.text)
    is_right = None if score is None or metric.kind == "number" else score == 1
    mark = (
        metric_value(score, metric.unit) if is_right is None else "right" if is_right else "wrong"
    )
    notes = (
        "" if prediction.stopped else f"cut at {counted(prediction.num_tokens, 'token')}",
        "same JSON, written differently" if difference.kind == "same meaning" else "",
        "nothing in common to mark" if difference.kind == "unlike" else "",
    )
    return Answer(system.name, mark, is_right, tuple(filter(None, notes)), difference)
