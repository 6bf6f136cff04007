"""A row becomes an example: one converter per layout, each recognised by its fields.

A converter reports what is wrong with a row and returns None, or returns an example that is ready
to be used. Adding a layout is one `Format` in FORMATS.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from luthier.data.examples import (
    Chat,
    Example,
    Finding,
    Message,
    Rated,
    Row,
    Text,
)
from luthier.data.hosted import read_contents, read_converse
from luthier.data.labelled import (
    LABEL_FIELDS,
    NEGATIVE_FIELDS,
    PAIR_FIELDS,
    SCORED_FIELDS,
    TEXT_FIELDS,
    read_labelled,
    read_pair,
    read_scored_pair,
)
from luthier.data.preferences import read_preference
from luthier.data.reading import Report, is_nan
from luthier.data.turns import Turns, is_json, shape

SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "system": "system",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Format:
    """A layout of rows: the fields it is recognised by, and how it becomes an example."""

    name: str
    fields: frozenset[str]
    optional: frozenset[str]
    convert: Callable[[Turns, dict[str, Any]], Example | None]
    fits: Callable[[dict[str, Any]], bool] = lambda fields: True
    """What else tells the layout, where the fields alone do not."""


def _messages(turns: Turns, fields: dict[str, Any]) -> list[Message | None]:
    value = fields["messages"]
    value = json.loads(value) if is_json(value) else value  # a cell of a CSV
    if not isinstance(value, list) or not value:
        turns.wrong("wrong-type", "messages", f"is {shape(value)}", "a list of messages")
        return []
    return [turns.message(item, f"messages[{i}]") for i, item in enumerate(value)]


def _completion(turns: Turns, fields: dict[str, Any]) -> list[Message | None]:
    messages: list[Message | None] = []
    for field, role in (("prompt", "user"), ("completion", "assistant")):
        value = fields[field]
        if isinstance(value, list):
            messages += [turns.message(item, f"{field}[{i}]") for i, item in enumerate(value)]
        else:
            text = turns.text(value, field)
            messages.append(Message("assistant" if role == "assistant" else "user", text))
    return messages


def _instruction(turns: Turns, fields: dict[str, Any]) -> list[Message | None]:
    question = turns.text(fields["instruction"], "instruction")
    more = fields.get("input")
    if more not in (None, ""):
        question = f"{question}\n\n{turns.text(more, 'input', may_be_empty=True)}"
    messages: list[Message | None] = []
    if fields.get("system"):
        messages.append(Message("system", turns.text(fields["system"], "system")))
    answer = turns.text(fields["output"], "output")
    return [*messages, Message("user", question), Message("assistant", answer)]


def _sharegpt(turns: Turns, fields: dict[str, Any]) -> list[Message | None]:
    value = fields["conversations"]
    value = json.loads(value) if is_json(value) else value
    if not isinstance(value, list) or not value:
        turns.wrong("wrong-type", "conversations", f"is {shape(value)}", "a list of turns")
        return []
    messages: list[Message | None] = []
    if fields.get("system"):
        messages.append(Message("system", turns.text(fields["system"], "system")))
    for i, item in enumerate(value):
        field = f"conversations[{i}]"
        speaker = item.get("from") if isinstance(item, dict) else None
        role = SHAREGPT_ROLES.get(str(speaker))
        if role is None:
            turns.wrong(
                "unknown-role", f"{field}.from", f"is {speaker!r}", ", ".join(SHAREGPT_ROLES)
            )
            continue
        wire = {"role": role, "content": item.get("value")}
        if role == "tool":
            wire["tool_call_id"] = f"turn-{i}"
        messages.append(turns.message(wire, field))
    return messages


def _choices(value: Any) -> tuple[str, ...]:
    """Answers to choose from; a column of that name may hold anything else, which is none."""
    value = json.loads(value) if is_json(value) else value  # a cell of a CSV
    is_list = isinstance(value, list) and len(value) > 1
    are_texts = is_list and all(isinstance(each, str) and each.strip() for each in value)
    return tuple(value) if are_texts else ()


def _chats(
    read: Callable[[Turns, dict[str, Any]], list[Message | None]],
) -> Callable[[Turns, dict[str, Any]], Chat | None]:
    """The converter to chats of a layout whose messages `read` finds."""

    def convert(turns: Turns, fields: dict[str, Any]) -> Chat | None:
        messages = [message for message in read(turns, fields) if message is not None]
        if not turns.is_broken:
            turns.check_order(messages)
        tools = turns.tools(fields.get("tools"))
        if turns.is_broken:
            return None
        choices = _choices(fields.get("choices"))
        return Chat(turns.id, turns.row.place, tuple(messages), tools, turns.slices, choices)

    return convert


def _rated(turns: Turns, fields: dict[str, Any]) -> Rated | None:
    chat = (_chats(_messages) if "messages" in fields else _chats(_completion))(turns, fields)
    mark = MARKS.get(_mark(fields))
    if mark is None:
        accepted = f"true or false, or one of {', '.join(MARKS)}"
        turns.wrong("unknown-mark", "label", f"is {fields['label']!r}", accepted)
    return None if chat is None or mark is None else Rated(chat, mark)


def _is_mark(fields: dict[str, Any]) -> bool:
    """Whether the label is a thumb: 0 and 1 may be classes, and are marks only if one says so."""
    return _mark(fields) in MARKS.keys() - {"0", "1"}


def _mark(fields: dict[str, Any]) -> str:
    return str(fields["label"]).lower()


def _text(turns: Turns, fields: dict[str, Any]) -> Text | None:
    text = turns.text(fields["text"], "text")
    return None if turns.is_broken else Text(turns.id, turns.row.place, text, turns.slices)


MARKS = {
    "true": True, "good": True, "up": True, "thumbs_up": True, "+1": True, "1": True,
    "false": False, "bad": False, "down": False, "thumbs_down": False, "-1": False, "0": False,
}  # fmt: skip
"""Labels that say whether an answer was liked."""

_PAIR = frozenset({"tools", "system", "parallel_tool_calls"})
FORMATS = (
    Format("rated", frozenset({"messages", "label"}), frozenset({"tools"}), _rated, _is_mark),
    Format("rated", frozenset({"prompt", "completion", "label"}), frozenset(), _rated, _is_mark),
    Format(
        "bedrock", frozenset({"schemaVersion", "messages"}), frozenset({"system"}),
        _chats(read_converse),
    ),
    Format(
        "contents", frozenset({"contents"}), frozenset({"systemInstruction"}),
        _chats(read_contents),
    ),
    Format("messages", frozenset({"messages"}), frozenset({"tools"}), _chats(_messages)),
    Format(
        "prompt-completion", frozenset({"prompt", "completion"}), frozenset(), _chats(_completion)
    ),
    Format(
        "sharegpt", frozenset({"conversations"}), frozenset({"system", "tools"}), _chats(_sharegpt)
    ),
    Format(
        "instruction",
        frozenset({"instruction", "output"}),
        frozenset({"input", "system"}),
        _chats(_instruction),
    ),
    Format("preference", frozenset({"prompt", "chosen", "rejected"}), _PAIR, read_preference),
    Format("preference", frozenset({"chosen", "rejected"}), _PAIR, read_preference),
    *(
        Format("preference", frozenset({"input", f"preferred_{x}", f"non_preferred_{x}"}), _PAIR,
               read_preference)
        for x in ("output", "completion")
    ),
    *(
        Format("labelled" if len(texts) == 1 else "labelled-pair", frozenset({*texts, label}),
               frozenset(), read_labelled)
        for texts in sorted(TEXT_FIELDS, key=len, reverse=True)
        for label in LABEL_FIELDS
    ),
    *(
        Format("pair", frozenset(texts), frozenset(NEGATIVE_FIELDS), read_pair)
        for texts in PAIR_FIELDS
    ),
    Format("scored-pair", frozenset(SCORED_FIELDS), frozenset(), read_scored_pair),
    Format("text", frozenset({"text"}), frozenset(), _text),
)  # fmt: skip
"""Known layouts, in the order they are tried."""


def recognise(
    fields: dict[str, Any], wanted: str = "auto", before: Format | None = None
) -> Format | None:
    """The layout of a row, by its fields; None when it is not (the wanted) one.

    A row that has all fields of the layout before it, and would be a poorer one, is one of it.
    """
    for layout in FORMATS:
        has_fields = layout.fields <= fields.keys()
        if has_fields and (wanted == layout.name or (wanted == "auto" and layout.fits(fields))):
            is_poorer = before is not None and layout.fields < before.fields <= fields.keys()
            return before if is_poorer else layout
    return None


def describe_formats() -> str:
    """The accepted layouts in words."""
    return ", or ".join(" + ".join(sorted(layout.fields)) for layout in FORMATS)


def convert(layout: Format, row: Row, report: Report) -> Example | None:
    """The example of a row, or None after reporting everything wrong with it."""
    turns = Turns(row, report)
    known = layout.fields | layout.optional | {"id"}
    turns.slices = {
        key: str(value)
        for key, value in row.fields.items()
        if key not in known and isinstance(value, str | int | float) and not is_nan(value)
    }
    return layout.convert(turns, row.fields)


class RowReader:
    """Rows of one layout become examples, one by one; everything wrong with them is reported."""

    def __init__(self, report: Report, wanted: str = "auto") -> None:
        self._report, self._wanted = report, wanted
        self.layout: Format | None = None
        """That of the rows so far."""
        self.num_rows = 0

    def example(self, row: Row) -> Example | None:
        """The example of the next row; None after reporting why there is none."""
        self.num_rows += 1
        found = recognise(row.fields, self._wanted, self.layout)
        self.layout = self.layout or found
        if found is not None and found is self.layout:
            return convert(found, row, self._report)
        self._report(_unknown_layout(row, found, self.layout))
        return None


def _unknown_layout(row: Row, found: Format | None, before: Format | None) -> Finding:
    """A row of no layout, or of another than the rows before it."""
    accepted = " + ".join(sorted(before.fields)) if before else describe_formats()
    if found and before:
        said = f"is laid out as {found.name}, and the rows before it as {before.name}"
        advice = "make one file of each, or set data.format"
        return Finding(row.place, "unknown-layout", "", said, accepted, advice)
    fields = ", ".join(map(str, row.fields)) or "none"
    return Finding(row.place, "unknown-layout", "", f"has the fields {fields}", accepted)


def example_of(row: Row) -> Example | None:
    """The example of a row by itself; None when it has no known layout, or something is wrong."""
    layout = recognise(row.fields)
    return convert(layout, row, lambda finding: None) if layout else None
