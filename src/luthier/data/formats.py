"""A row becomes a chat: one converter per layout, each recognised by its fields.

A converter reports what is wrong with a row and returns None, or returns messages that are ready to
be used. Adding a layout is one `Format` in FORMATS.
"""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

from luthier.data.examples import Chat, Finding, Message, Role, Row, ToolCall
from luthier.data.reading import Report, is_nan

ROLES: tuple[str, ...] = get_args(Role)
SHAREGPT_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "system": "system",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Format:
    """A layout of rows: the fields it is recognised by, and how it becomes messages."""

    name: str
    fields: frozenset[str]
    optional: frozenset[str]
    convert: Callable[["Turns", dict[str, Any]], list[Message | None]]


class Turns:
    """Builds the messages of one row, and reports everything wrong with them."""

    def __init__(self, row: Row, report: Report) -> None:
        self.row, self._report = row, report
        self.is_broken = False

    def wrong(self, name: str, field: str, found: str, accepted: str, advice: str = "") -> None:
        """Report one thing that is wrong with the row."""
        self.is_broken = True
        self._report(Finding(self.row.place, name, field, found, accepted, advice))

    def text(self, value: Any, field: str, *, may_be_empty: bool = False) -> str:
        """A string, or the joined text parts of a list; anything else is reported."""
        if isinstance(value, list) and all(isinstance(p, dict) and "text" in p for p in value):
            value = "".join(str(part["text"]) for part in value)
        if value is None:
            self.wrong("null-content", field, "is null", "text")
        elif is_nan(value):
            self.wrong("nan-content", field, "is not a number (NaN)", "text")
        elif not isinstance(value, str):
            self.wrong("wrong-type", field, f"is a {type(value).__name__}", "text")
        elif not value.strip() and not may_be_empty:
            self.wrong("empty-content", field, "is empty", "text", "fill it in or remove the row")
        else:
            return value
        return ""

    def message(self, value: Any, field: str) -> Message | None:
        """One message of OpenAI's chat layout."""
        if not isinstance(value, dict):
            self.wrong("wrong-type", field, f"is a {type(value).__name__}", "an object")
            return None
        role = value.get("role")
        if role not in ROLES:
            close = difflib.get_close_matches(str(role), ROLES, 1, 0.5)
            advice = f"did you mean {close[0]}?" if close else ""
            self.wrong("unknown-role", f"{field}.role", f"is {role!r}", ", ".join(ROLES), advice)
            return None
        calls = self.tool_calls(value.get("tool_calls"), f"{field}.tool_calls")
        content = value.get("content")
        is_call_alone = bool(calls) and content in (None, "")
        text = "" if is_call_alone else self.text(content, f"{field}.content")
        weight = value.get("weight", 1)
        if weight not in (0, 1) or isinstance(weight, bool):
            self.wrong("wrong-weight", f"{field}.weight", f"is {weight!r}", "0 or 1")
            weight = 1
        call_id = value.get("tool_call_id") or ""
        if role == "tool" and not call_id:
            self.wrong(
                "missing-field", f"{field}.tool_call_id", "is missing", "the id of the tool's call"
            )
        name = value.get("name") or ""
        return Message(role, text, str(name), calls, str(call_id), float(weight))

    def tool_calls(self, value: Any, field: str) -> tuple[ToolCall, ...]:
        """The calls of an assistant message."""
        if value is None:
            return ()
        if not isinstance(value, list):
            self.wrong("wrong-type", field, f"is a {type(value).__name__}", "a list of calls")
            return ()
        calls = []
        for i, call in enumerate(value):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                self.wrong(
                    "broken-tool-call", f"{field}[{i}]", "names no function",
                    '{"id", "type": "function", "function": {"name", "arguments"}}',
                )  # fmt: skip
                continue
            arguments = function.get("arguments", "{}")
            if isinstance(arguments, dict):
                arguments = json.dumps(arguments, ensure_ascii=False)
            if not _is_json(arguments):
                self.wrong(
                    "broken-tool-call", f"{field}[{i}].function.arguments",
                    "is not JSON", "the arguments as JSON text",
                )  # fmt: skip
                continue
            calls.append(ToolCall(str(call.get("id") or ""), function["name"], arguments))
        return tuple(calls)

    def check_order(self, messages: list[Message]) -> None:
        """What only the whole conversation can get wrong."""
        roles = [message.role for message in messages]
        if "assistant" not in roles:
            self.wrong(
                "no-assistant-turn", "messages", f"has the roles {', '.join(roles) or 'none'}",
                "at least one assistant turn to learn from",
            )  # fmt: skip
        elif roles[0] == "assistant":
            self.wrong("no-prompt", "messages[0]", "is the assistant's", "a user turn before it")
        late = [i for i, role in enumerate(roles) if role in ("system", "developer") and i > 0]
        for i in late:
            if any(role not in ("system", "developer") for role in roles[:i]):
                self.wrong(
                    "late-system-turn", f"messages[{i}].role", f"is {roles[i]} after other turns",
                    "system turns at the start only",
                )  # fmt: skip


def _is_json(text: Any) -> bool:
    try:
        return isinstance(text, str) and json.loads(text) is not None
    except (ValueError, RecursionError):
        return False


def _messages(turns: Turns, fields: dict[str, Any]) -> list[Message | None]:
    value = fields["messages"]
    value = json.loads(value) if _is_json(value) else value  # a cell of a CSV
    if not isinstance(value, list) or not value:
        turns.wrong("wrong-type", "messages", f"is {_shape(value)}", "a list of messages")
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
    value = json.loads(value) if _is_json(value) else value
    if not isinstance(value, list) or not value:
        turns.wrong("wrong-type", "conversations", f"is {_shape(value)}", "a list of turns")
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
        wire = {"role": role, "content": item.get("value"), "tool_call_id": f"turn-{i}"}
        messages.append(turns.message(wire, field))
    return messages


def _shape(value: Any) -> str:
    return "an empty list" if value == [] else f"a {type(value).__name__}"


FORMATS = (
    Format("messages", frozenset({"messages"}), frozenset({"tools"}), _messages),
    Format("prompt-completion", frozenset({"prompt", "completion"}), frozenset(), _completion),
    Format("sharegpt", frozenset({"conversations"}), frozenset({"system", "tools"}), _sharegpt),
    Format(
        "instruction",
        frozenset({"instruction", "output"}),
        frozenset({"input", "system"}),
        _instruction,
    ),
)
"""Known layouts, in the order they are tried."""


def recognise(fields: dict[str, Any], wanted: str = "auto") -> Format | None:
    """The layout of a row, by its fields; None when it is not (the wanted) one."""
    for layout in FORMATS:
        if wanted in ("auto", layout.name) and layout.fields <= fields.keys():
            return layout
    return None


def describe_formats() -> str:
    """The accepted layouts in words."""
    return ", or ".join(" + ".join(sorted(layout.fields)) for layout in FORMATS)


def convert(layout: Format, row: Row, report: Report) -> Chat | None:
    """The chat of a row, or None after reporting everything wrong with it."""
    turns = Turns(row, report)
    messages = [message for message in layout.convert(turns, row.fields) if message is not None]
    if not turns.is_broken:
        turns.check_order(messages)
    tools: Any = row.fields.get("tools") or []
    tools = json.loads(tools) if _is_json(tools) else tools
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        turns.wrong("wrong-type", "tools", f"is {_shape(tools)}", "a list of tool definitions")
    if turns.is_broken:
        return None
    known = layout.fields | layout.optional | {"id"}
    slices = {
        key: str(value)
        for key, value in row.fields.items()
        if key not in known and isinstance(value, str | int | float) and not is_nan(value)
    }
    given = row.fields.get("id")
    name = str(given) if isinstance(given, str | int) else f"{_stem(row)}:{row.place.line}"
    return Chat(name, row.place, tuple(messages), tuple(tools), slices)


def _stem(row: Row) -> str:
    return row.place.file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
