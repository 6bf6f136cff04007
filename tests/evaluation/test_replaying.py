"""Recorded answers: found again by what rows ask."""

import json
from dataclasses import replace

import pytest

from luthier.data import prompt_key
from luthier.errors import EvaluationError
from luthier.evaluation import Prediction, RecordedAnswer, RecordedPredictor, recorded
from tiny import chat

ROWS = [chat(("user", f"q{i}"), ("assistant", f"a{i}"), line=i) for i in range(3)]


def answered(text: str, asked: str = "", name: str = "") -> RecordedAnswer:
    return RecordedAnswer(Prediction(name, text, stopped=True, num_tokens=1), asked)


def test_what_was_recorded_says_the_question_and_all_that_is_known() -> None:
    prediction = Prediction(
        ROWS[0].id, "a0", stopped=False, num_tokens=4, target_loss=0.5, target_tokens=2,
        tool_calls=(("now", "{}"),), prompt_tokens=9, seconds=0.1,
    )  # fmt: skip
    failed = Prediction(ROWS[1].id, "", stopped=False, num_tokens=0, error="busy")
    (line,) = recorded(ROWS[:2], [prediction, failed])
    assert json.loads(json.dumps(line)) == {
        "id": ROWS[0].id, "draw": 0, "messages": [{"role": "user", "content": "q0"}],
        "answer": "a0", "tool_calls": [["now", "{}"]], "stopped": False, "num_tokens": 4,
        "target_loss": 0.5,
        "target_tokens": 2, "prompt_tokens": 9, "seconds": 0.1,
    }  # fmt: skip


def test_answers_are_found_by_question_whatever_the_ids() -> None:
    answers = [answered(f"a{i}", prompt_key(ROWS[i]), "elsewhere:1") for i in (2, 0)]
    found = RecordedPredictor("old", answers, "old.jsonl").predict(ROWS)
    assert [(p.example_id, p.text) for p in found] == [
        (ROWS[0].id, "a0"), (ROWS[1].id, ""), (ROWS[2].id, "a2"),
    ]  # fmt: skip
    assert found[1].error == "there is no recorded answer"


def test_answers_without_a_question_are_found_by_id() -> None:
    found = RecordedPredictor("old", [answered("x", name=ROWS[1].id)], "f").predict(ROWS)
    assert [p.text for p in found] == ["", "x", ""]


def test_several_answers_to_one_question_are_given_in_order() -> None:
    key = prompt_key(ROWS[0])
    rows = [replace(ROWS[0], id=name) for name in "abc"]
    answers = [answered("first", key), answered("second", key)]
    predictor = RecordedPredictor("old", answers, "f")
    for _ in range(2):
        assert [p.text for p in predictor.predict(rows)] == ["first", "second", "second"]


def test_answers_to_other_rows_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"old.jsonl: no row of 3"):
        RecordedPredictor("old", [answered("x", "other")], "old.jsonl").predict(ROWS)
