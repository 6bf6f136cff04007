"""Votes become rows to learn from: preferences where people agree, corrections as answers."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.data import Example, Message
from luthier.evaluation import SystemResult
from luthier.review.votes import Vote

ORIGIN = "origin"
"""Field of a row that says where it is from."""


def preferred_rows(
    votes: Sequence[Vote], examples: Sequence[Example], systems: Sequence[SystemResult]
) -> list[dict[str, Any]]:
    """A preference for each row and pair whose votes all say the same, ties apart."""
    answers = {
        system.name: {p.example_id: p.text for p in system.predictions} for system in systems
    }
    known = {example.id: example for example in examples}
    said: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for vote in votes:
        said[vote.row, vote.first, vote.second].add(vote.choice)
    rows = []
    for (row, first, second), choices in said.items():
        decided = choices - {"tie"}
        if decided not in ({"first"}, {"second"}) or row not in known:
            continue
        better, worse = (first, second) if decided == {"first"} else (second, first)
        rows.append(
            {
                "input": {"messages": _wire(known[row].prompt)},
                "preferred_output": [{"role": "assistant", "content": answers[better][row]}],
                "non_preferred_output": [{"role": "assistant", "content": answers[worse][row]}],
                ORIGIN: f"votes on {row}",
            }
        )
    return rows


def corrected_rows(votes: Sequence[Vote], examples: Sequence[Example]) -> list[dict[str, Any]]:
    """A conversation for each correction, with the answer that a person wrote."""
    known: Mapping[str, Example] = {example.id: example for example in examples}
    last = {(vote.row, vote.rater): vote for vote in votes if vote.correction}
    return [
        {
            "messages": [
                *_wire(known[vote.row].prompt),
                {"role": "assistant", "content": vote.correction},
            ],
            ORIGIN: f"correction of {vote.row} by {vote.rater}",
        }
        for vote in last.values()
        if vote.row in known
    ]


def _wire(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
