"""Metrics that fit the data."""

import json
from pathlib import Path

import pytest

from luthier.errors import EvaluationError
from luthier.evaluation.suggesting import suggest_by_text

SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_json_answers_are_judged_by_value_and_by_field() -> None:
    suggestion = suggest_by_text(['{"a": 1}', "[2]"])
    assert suggestion.metrics == ("exact", "fields", "json", "loss")
    assert "JSON" in suggestion.reason


def test_one_answer_that_is_not_json_is_enough_to_treat_all_as_text() -> None:
    assert "json" not in suggest_by_text(['{"a": 1}', "no"]).metrics


def test_bare_numbers_are_not_json_answers() -> None:
    assert suggest_by_text([str(number) for number in range(9)]).metrics[0] == "exact"


def test_a_closed_set_of_long_answers_is_judged_exactly() -> None:
    answers = ["this message is an unwanted advertisement", "this message is perfectly fine"] * 5
    suggestion = suggest_by_text(answers)
    assert suggestion.metrics == ("exact", "chrf", "loss")
    assert suggestion.reason == "10 answers take only 2 values"


def test_short_answers_are_judged_exactly() -> None:
    suggestion = suggest_by_text(["apparatus", "necessary", "ls -l"])
    assert suggestion.metrics == ("exact", "chrf", "loss")
    assert "1 words and 9 characters" in suggestion.reason


@pytest.mark.parametrize(
    "answer",
    [
        "Library that reads and writes portable bitmap pictures",
        "\u6211\u53ef\u4ee5\u56de\u7b54\u5404\u79cd\u95ee\u9898" * 5,
    ],
)
def test_free_text_is_judged_by_overlap(answer: str) -> None:
    assert suggest_by_text([answer]).metrics == ("chrf", "rouge_l", "loss")


def test_no_rows_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(EvaluationError, match=r"no held-out row.*data\.test"):
        suggest_by_text([])


@pytest.mark.parametrize(
    ("name", "primary"),
    [("home-json", "exact"), ("deb-synopsis", "chrf"), ("spelling", "exact"), ("shell", "exact")],
)
def test_real_data_gets_the_metric_one_would_choose(name: str, primary: str) -> None:
    file = SHARED / name / "test.jsonl"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    targets = [row["messages"][-1]["content"] for row in rows]
    assert suggest_by_text(targets).metrics[0] == primary
