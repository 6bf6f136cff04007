"""Preferences, rated answers and raw text: their layouts, and what can be wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.data import (
    Finding,
    Place,
    Preference,
    Rated,
    Row,
    Text,
    canonical,
    prompt_key,
    read_dataset,
)
from luthier.data.formats import convert, recognise
from luthier.errors import DataError
from luthier.recipe import Data

USER = {"role": "user", "content": "q"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def converted(fields: dict[str, Any]) -> tuple[Any, list[str]]:
    findings: list[Finding] = []
    layout = recognise(fields)
    assert layout is not None
    example = convert(layout, Row(Place("rows.jsonl", 3), fields), findings.append)
    return example, [str(finding) for finding in findings]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"input": {"messages": [USER]}, "preferred_completion": [GOOD],
         "non_preferred_completion": [BAD]},
        {"prompt": json.dumps([USER]), "chosen": json.dumps([GOOD]), "rejected": "bad"},
    ],
)  # fmt: skip
def test_every_layout_of_a_preference_means_the_same(fields: dict[str, Any]) -> None:
    example, findings = converted({**fields, "why": "style"})
    assert findings == []
    assert isinstance(example, Preference)
    assert [m.content for m in example.prompt] == ["q"]
    assert (example.target.content, example.rejected.content) == ("good", "bad")
    assert example.slices == {"why": "style"}
    assert [chat.target.content for chat in example.chats] == ["good", "bad"]


def test_a_conversation_of_several_turns_is_cut_where_the_answers_part() -> None:
    turns = [USER, {"role": "assistant", "content": "a"}, {"role": "user", "content": "more"}]
    example, _ = converted({"chosen": [*turns, GOOD], "rejected": [*turns, BAD], "system": "s"})
    assert [m.content for m in example.prompt] == ["s", "q", "a", "more"]


def test_tools_of_openai_preferences_are_kept() -> None:
    example, _ = converted({
        "input": {"messages": [USER], "tools": TOOLS, "parallel_tool_calls": True},
        "preferred_output": [GOOD], "non_preferred_output": [BAD],
    })  # fmt: skip
    assert example.tools == tuple(TOOLS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "rejected is the same as chosen"),
        ({"prompt": "q", "chosen": "a", "rejected": " "}, "rejected is empty; expected text"),
        ({"prompt": "q", "chosen": None, "rejected": "b"}, "chosen is null; expected text"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "prompt is empty"),
        ({"prompt": "q", "chosen": [], "rejected": "b"}, "chosen is an empty list"),
        ({"prompt": [{"role": "usr", "content": "q"}], "chosen": "a", "rejected": "b"},
         "prompt[0].role is 'usr'; expected system"),
        ({"prompt": "q", "chosen": [USER, GOOD], "rejected": [BAD]},
         "chosen has the roles user, assistant; expected one assistant turn after the prompt"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "prompt holds no user turn"),
        ({"input": "q", "preferred_output": [GOOD], "non_preferred_output": [BAD]},
         "input is a str; expected an object"),
        ({"text": ""}, "text is empty; expected text"),
        ({"text": 7}, "text is a int; expected text"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_field(fields: dict[str, Any], expected: str) -> None:
    example, findings = converted(fields)
    assert example is None
    assert any(f"rows.jsonl:3 {expected}" in finding for finding in findings), findings


@pytest.mark.parametrize(
    ("label", "is_good"),
    [(True, True), (False, False), ("up", True), ("thumbs_down", False), ("-1", False)],
)
def test_thumbs_make_rated_answers(label: object, is_good: bool) -> None:
    for fields in ({"prompt": "q", "completion": "a"}, {"messages": [USER, GOOD]}):
        example, findings = converted({**fields, "label": label})
        assert findings == []
        assert isinstance(example, Rated)
        assert example.is_good is is_good
        assert example.prompt[0].content == "q"
        assert "label" not in example.slices


def test_a_label_that_is_no_thumb_is_a_column() -> None:
    example, _ = converted({"prompt": "q", "completion": "a", "label": "sports"})
    assert not isinstance(example, Rated)
    assert example.slices == {"label": "sports"}


def test_raw_text_is_a_text() -> None:
    example, _ = converted({"text": "Once upon a time.", "language": "en"})
    assert isinstance(example, Text)
    assert (example.prompt, example.target.content) == ((), "Once upon a time.")
    assert example.slices == {"language": "en"}


def test_what_is_said_differs_where_the_meaning_does() -> None:
    rated = [converted({"prompt": "q", "completion": "a", "label": x})[0] for x in (True, False)]
    pair = converted({"prompt": "q", "chosen": "a", "rejected": "b"})[0]
    swapped = converted({"prompt": "q", "chosen": "b", "rejected": "a"})[0]
    texts = [converted({"text": x})[0] for x in ("one", "two")]
    assert len({canonical(e) for e in (*rated, pair, swapped, *texts)}) == 6
    assert prompt_key(pair) == prompt_key(swapped) == prompt_key(rated[0])
    assert prompt_key(texts[0]) != prompt_key(texts[1])


def test_mixed_kinds_in_one_file_and_across_files_are_refused(tmp_path: Path) -> None:
    pair = json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"})
    text = json.dumps({"text": "words"})
    mixed, texts = tmp_path / "mixed.jsonl", tmp_path / "texts.jsonl"
    mixed.write_text(f"{pair}\n{text}\n")
    texts.write_text(text)
    reading = read_dataset(Data(train=mixed))
    (finding,) = [f for f in reading.findings if f.severity == "error"]
    assert "mixed.jsonl:2 is laid out as text, and the rows before it as preference" in str(finding)
    mixed.write_text(pair)
    with pytest.raises(DataError, match=r"different kinds of examples(.|\n)*text rows"):
        read_dataset(Data(train=mixed, test=texts))


def test_columns_that_look_alike_do_not_confuse() -> None:
    pair = {"prompt": "q", "chosen": "good", "rejected": "bad", "input": "x"}
    example, findings = converted(pair)
    assert findings == []
    assert example.slices == {"input": "x"}
    wire = {"input": {"messages": [USER]}, "preferred_output": [GOOD],
            "non_preferred_output": [BAD], "preferred_language": "en"}  # fmt: skip
    example, findings = converted(wire)
    assert findings == []
    assert example.slices == {"preferred_language": "en"}
