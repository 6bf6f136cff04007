"""Finished systems survive a file."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from evaluation_fakes import CHRF, EXACT, LOSS, make_system
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import EvaluationError
from luthier.evaluation import Prediction, SystemResult, from_json, to_json

NUMBERS = st.none() | st.floats(0, 100)
PREDICTIONS = st.builds(
    Prediction,
    example_id=st.text(max_size=4),
    text=st.text(st.characters(), max_size=8),
    stopped=st.booleans(),
    num_tokens=st.integers(0, 9),
    target_loss=NUMBERS,
    target_tokens=st.none() | st.integers(0, 9),
)


@given(st.lists(st.tuples(PREDICTIONS, NUMBERS), min_size=1, max_size=5), st.floats(0, 1e4))
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read_back_to_the_last_bit(
    rows: list[tuple[Prediction, float | None]], seconds: float
) -> None:
    made = make_system("base", "zero_shot", {CHRF: [score for _, score in rows]})
    predictions = tuple(prediction for prediction, _ in rows)
    result = SystemResult(
        made.name, made.kind, predictions, made.scores, made.estimates, seconds, seconds
    )
    assert from_json(to_json(result), SystemResult) == result


def test_half_a_surrogate_in_an_answer_survives() -> None:
    made = make_system("base", "zero_shot", {EXACT: [0.0]})
    prediction = Prediction("row-0", "cut \ud83d", False, 3)
    result = SystemResult("base", "zero_shot", (prediction,), made.scores, made.estimates, 1.0, 2.5)
    text = to_json(result)
    assert text.isascii()
    assert from_json(text, SystemResult) == result


def broken_texts() -> list[str]:
    whole: dict[str, Any] = asdict(make_system("base", "zero_shot", {LOSS: [1.0]}))
    texts = ["", "{", "[]", "null", "[" * 100_000]
    texts += [
        json.dumps({key: whole[key] for key in whole if key != left_out})
        for left_out in whole.keys() - {"unscored"}
    ]
    return [*texts, json.dumps(whole | {"kind": "best"}), json.dumps(whole)[:-9]]


@pytest.mark.parametrize("text", broken_texts(), ids=range(len(broken_texts())))
def test_a_damaged_record_is_an_error_that_says_what_to_do(text: str) -> None:
    with pytest.raises(EvaluationError, match=r"run/base\.json: .*delete it"):
        from_json(text, SystemResult, where="run/base.json")
