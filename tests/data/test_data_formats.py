"""Rows become chats by their fields; what is wrong is said by field."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data import Chat, Example, Finding, Place, Row
from luthier.data.formats import FORMATS, convert, recognise


def converted(fields: dict[str, Any]) -> tuple[Example | None, list[str]]:
    findings: list[Finding] = []
    row = Row(Place("rows.jsonl", 3), fields)
    layout = recognise(fields)
    assert layout is not None
    return convert(layout, row, findings.append), [str(finding) for finding in findings]


def said(chat: Example | None) -> list[tuple[str, str]]:
    assert isinstance(chat, Chat)
    return [(message.role, message.content) for message in chat.messages]


CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (CHAT, [("user", "q"), ("assistant", "a")]),
        ({"prompt": "q", "completion": "a"}, [("user", "q"), ("assistant", "a")]),
        (
            {"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
             "completion": [{"role": "assistant", "content": "a"}]},
            [("system", "s"), ("user", "q"), ("assistant", "a")],
        ),
        (
            {"instruction": "i", "input": "x", "output": "a"},
            [("user", "i\n\nx"), ("assistant", "a")],
        ),
        (
            {"instruction": "i", "input": "", "output": "a", "system": "s"},
            [("system", "s"), ("user", "i"), ("assistant", "a")],
        ),
        (
            {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},
                               {"from": "gpt", "value": "a"}]},
            [("system", "s"), ("user", "q"), ("assistant", "a")],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]},
                          {"role": "assistant", "content": "a"}]},
            [("user", "q"), ("assistant", "a")],
        ),
        ({"messages": json.dumps(CHAT["messages"])}, [("user", "q"), ("assistant", "a")]),
    ],
)  # fmt: skip
def test_each_layout_is_recognised_by_its_fields(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    chat, findings = converted(fields)
    assert findings == []
    assert said(chat) == expected


def turns(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(messages)}


USER, ASSISTANT = CHAT["messages"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (turns(USER), "messages has the roles user; expected at least one assistant turn"),
        (turns(ASSISTANT), r"messages[0] is the assistant's"),
        (turns(USER, {"role": "bot", "content": "x"}), "messages[1].role is 'bot'"),
        (turns(USER, {"role": "asistant", "content": "x"}), "did you mean assistant?"),
        (turns(USER, {"role": "assistant", "content": None}), "messages[1].content is null"),
        (turns(USER, {"role": "assistant", "content": " "}), "messages[1].content is empty"),
        (turns(USER, {"role": "assistant"}), "messages[1].content is null"),
        (turns(USER, {"role": "assistant", "content": 3}), "messages[1].content is a int"),
        (turns(USER, "x"), "messages[1] is a str"),  # type: ignore[arg-type]
        (turns(USER, {**ASSISTANT, "weight": 0.5}), "messages[1].weight is 0.5; expected 0 or 1"),
        (turns(USER, ASSISTANT, {"role": "system", "content": "s"}), "is system after other turns"),
        (turns(USER, {"role": "tool", "content": "x"}, ASSISTANT), "messages[1].tool_call_id"),
        (turns(), "messages is an empty list"),
        ({"messages": "x"}, "messages is a str"),
        ({"prompt": "q", "completion": float("nan")}, "completion is not a number (NaN)"),
        ({"prompt": None, "completion": "a"}, "prompt is null"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "conversations[0].from is 'alien'"),
        ({**CHAT, "tools": "x"}, "tools is a str"),
    ],
)
def test_what_is_wrong_is_said_by_field(fields: dict[str, Any], message: str) -> None:
    chat, findings = converted(fields)
    assert chat is None
    assert any(message in finding for finding in findings), findings
    assert all(finding.startswith("rows.jsonl:3 ") for finding in findings)


def test_every_problem_of_a_row_is_listed() -> None:
    _, findings = converted(
        turns({"role": "bot", "content": "x"}, {"role": "user", "content": None}, ASSISTANT)
    )
    assert len(findings) == 2


def test_tool_calls_are_kept_and_checked() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    good = turns(USER, {"role": "assistant", "content": None, "tool_calls": [call]})
    chat, findings = converted({**good, "tools": [{"type": "function"}]})
    assert findings == []
    assert chat is not None
    assert chat.target.tool_calls[0].name == "f"
    assert json.loads(chat.target.tool_calls[0].arguments) == {"x": 1}
    assert chat.tools == ({"type": "function"},)
    call["function"] = {"name": "f", "arguments": "{"}
    _, findings = converted(good)
    assert "tool_calls[0].function.arguments is not JSON" in findings[0]


def test_weight_zero_and_other_columns_are_kept() -> None:
    chat, _ = converted(
        {**turns(USER, {**ASSISTANT, "weight": 0}), "id": 7, "language": "de", "n": 3, "x": [1]}
    )
    assert chat is not None
    assert chat.target.weight == 0
    assert chat.id == "7"
    assert chat.slices == {"language": "de", "n": "3"}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "name"]),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.sampled_from([layout.fields for layout in FORMATS]), st.data())
@settings(max_examples=200, deadline=None)
def test_any_values_give_a_chat_or_a_finding(fields: frozenset[str], data: st.DataObject) -> None:
    chat, findings = converted({name: data.draw(JSON) for name in sorted(fields)})
    assert (chat is None) == bool(findings)
