"""Calls of tools, read from protocols and texts, compared by value."""

import json
from dataclasses import replace

import pytest
from evaluation_fakes import make_chat, make_evaluation
from hypothesis import given
from hypothesis import strategies as st

from luthier.data import Message, ToolCall
from luthier.evaluation import Prediction, build_scorers, suggest_metrics
from luthier.evaluation.tool_answers import calls_in, judge_calls

CALL = ("weather", '{"city": "Rome", "days": 2}')
EXAMPLE = replace(
    make_chat("a", ""),
    messages=(
        Message("user", "weather in Rome, two days?"),
        Message("assistant", "", tool_calls=(ToolCall("1", *CALL),)),
    ),
)


def said(text: str = "", *calls: tuple[str, str]) -> Prediction:
    return Prediction("a", text, True, 1, tool_calls=calls)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "weather", "arguments": {"days": 2, "city": "Rome"}}\n</tool_call>',
        'Let me see. <tool_call>{"name": "weather", "arguments": {"city": "Rome", "days": 2}}',
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Rome", "days": 2.0}}]',
        '{"name": "weather", "parameters": {"city": "Rome", "days": 2}}',
        '{"type": "function", "function": {"name": "weather", "arguments": "{\\"city\\": '
        '\\"Rome\\", \\"days\\": 2}"}}',
    ],
)
def test_calls_are_read_as_templates_have_them_written(text: str) -> None:
    assert judge_calls(said(text), EXAMPLE) == 1


@pytest.mark.parametrize(
    "prediction",
    [
        said("It is sunny."),
        said("", ("weather", '{"city": "Rome"}')),
        said("", ("forecast", CALL[1])),
        said("", CALL, CALL),
        said("", ("weather", '{"city": "Rome", "days": "2"}')),
        said("", ("weather", '{"city": "Rome", "days": 2')),
        said("<tool_call>weather</tool_call>"),
    ],
)
def test_other_calls_are_wrong(prediction: Prediction) -> None:
    assert judge_calls(prediction, EXAMPLE) == 0


def test_the_order_of_calls_and_keys_says_nothing() -> None:
    other = ("time", "")
    target = replace(EXAMPLE.target, tool_calls=(ToolCall("1", *CALL), ToolCall("2", "time", "{}")))
    example = replace(EXAMPLE, messages=(EXAMPLE.messages[0], target))
    assert judge_calls(said("", other, ("weather", '{"days":2,"city":"Rome"}')), example) == 1


def test_a_call_where_none_is_wanted_is_wrong() -> None:
    plain = make_chat("a", "hello")
    assert judge_calls(said("", CALL), plain) == 0
    assert judge_calls(said("hi"), plain) is None


def test_the_scorer_is_suggested_where_answers_call() -> None:
    assert suggest_metrics([EXAMPLE]).metrics == ("tool_calls", "loss")
    (scorer,) = build_scorers(make_evaluation("tool_calls"))
    assert scorer.score(said("", CALL), EXAMPLE) == 1


@given(st.text(alphabet='<tool_ca>[]{}":,name arguments1 TOOL_CALLS/\\', max_size=80))
def test_no_text_raises(text: str) -> None:
    calls_in(text)
    calls_in(f"<tool_call>{text}</tool_call>")
    calls_in(json.dumps({"name": text, "arguments": {text: text}}))
