"""Every layout that is written is read back as what it was; what it cannot say is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data import (
    EXPORTS,
    Chat,
    Example,
    Finding,
    Labelled,
    Message,
    Place,
    Preference,
    Row,
    Text,
    ToolCall,
    canonical,
    example_of,
    export_rows,
)

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9).filter(str.strip)
TOOL = {"type": "function", "function": {"name": "turn_on", "parameters": {"type": "object"}}}


def chat(*messages: Message, tools: tuple[dict[str, Any], ...] = ()) -> Chat:
    return Chat("f:1", Place("f.jsonl", 1), messages, tools)


def turns(*texts: str, system: str = "") -> Chat:
    spoken = [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    return chat(*([Message("system", system)] if system else []), *spoken)


def exported(name: str, examples: list[Example]) -> tuple[list[dict[str, Any]], list[Finding]]:
    findings: list[Finding] = []
    lines = list(export_rows(EXPORTS[name], examples, findings.append))
    assert all(line.endswith("\n") for line in lines)
    return [json.loads(line) for line in lines], findings


def read(fields: dict[str, Any]) -> Example:
    found = example_of(Row(Place("f.jsonl", 1), fields))
    assert found is not None, fields
    return found


@pytest.mark.parametrize("name", EXPORTS)
@settings(max_examples=25, deadline=None)
@given(system=st.just("") | WORDS, texts=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_conversations_come_back(name: str, system: str, texts: list[tuple[str, str]]) -> None:
    pairs = texts[:1] if name == "alpaca" else texts
    example = turns(*(text for pair in pairs for text in pair), system=system)
    rows, findings = exported(name, [example] * 10)
    assert not findings
    assert {canonical(read(fields)) for fields in rows} == {canonical(example)}


@pytest.mark.parametrize("name", ["openai", "azure", "together", "fireworks"])
def test_tools_weights_and_preferences_come_back(name: str) -> None:
    call = ToolCall("c1", "turn_on", '{"area": "kitchen"}')
    whole = chat(
        Message("system", "short"), Message("user", "light", name="Ann"),
        Message("assistant", "", tool_calls=(call,)), Message("tool", "on", tool_call_id="c1"),
        Message("assistant", "It is on.", weight=0.0), Message("user", "thanks"),
        Message("assistant", "Any time."), tools=(TOOL,),
    )  # fmt: skip
    asked = (Message("system", "short"), Message("user", "Why?"))
    preferred = Preference("f:2", Place("f.jsonl", 2), asked, Message("assistant", "So."),
                           Message("assistant", "No."))  # fmt: skip
    for example in (whole, preferred):
        rows, findings = exported(name, [example] * 10)
        assert not findings
        assert {canonical(read(fields)) for fields in rows} == {canonical(example)}
        if name == "openai" and example is preferred:
            assert set(rows[0]) == {"input", "preferred_output", "non_preferred_output"}


def test_raw_texts_go_where_they_are_known() -> None:
    text = Text("f:1", Place("f.jsonl", 1), "once")
    assert exported("together", [text]) == ([{"text": "once"}], [])
    rows, findings = exported("openai", [text])
    assert not rows
    assert "f.jsonl:1 is a raw text, not a conversation" in str(findings[0])


@pytest.mark.parametrize(
    ("name", "example", "said"),
    [
        ("vertex", chat(Message("user", "a"), Message("assistant", "b", weight=0),
                        Message("user", "c"), Message("assistant", "d")), "weight 0"),
        ("bedrock", chat(Message("user", "a"), Message("assistant", "b"), tools=(TOOL,)),
         "defines tools"),
        ("bedrock", turns("a", "b", "c"), "does not end with an answer"),
        ("bedrock", chat(Message("user", "a"), Message("user", "b"), Message("assistant", "c")),
         "does not alternate"),
        ("bedrock", turns("User: hello", "b"), "begins with User:, which is reserved"),
        ("sharegpt", chat(Message("developer", "x"), Message("user", "a"),
                          Message("assistant", "b")), "developer message"),
        ("alpaca", turns("a", "b", "c", "d"), "no single question"),
        ("together", chat(Message("developer", "x"), Message("user", "a"),
                          Message("assistant", "b")), "role developer"),
        ("openai", turns("a", "b"), "is the last of 1 rows; expected 10 or more"),
        ("openai", Labelled("f:1", Place("f.jsonl", 1), "a", None, ("x",)), "a labelled text"),
        ("openai", chat(Message("user", "a"), Message("assistant", "b"), tools=(TOOL,) * 129),
         "defines 129 tools"),
    ],
)  # fmt: skip
def test_what_a_layout_cannot_say_or_its_owner_refuses_is_said(
    name: str, example: Example, said: str
) -> None:
    _, findings = exported(name, [example])
    assert any(said in str(finding) and "f.jsonl:1" in str(finding) for finding in findings)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"contents": []}, "contents is an empty list"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]}, "'assistant'"),
        ({"contents": [{"role": "user", "parts": [{"fileData": {}}]}]}, "holds fileData"),
        ({"contents": [{"role": "user"}]}, "contents[0].parts"),
        ({"schemaVersion": "x", "messages": "a"}, "messages is a str"),
    ],
)
def test_what_is_wrong_with_hosted_layouts_is_said(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    from luthier.data import read_dataset
    from luthier.recipe import Data

    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(fields) + "\n", encoding="utf-8")
    findings = read_dataset(Data(train=path)).findings
    assert any(said in str(finding) for finding in findings), [str(f) for f in findings]
