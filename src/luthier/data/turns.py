"""The messages of one row, built piece by piece, with everything wrong with them reported.

What all layouts share: texts, roles, tool calls and their order. Layouts (`formats`,
`preferences`) say where in a row to find them.
"""

import difflib
import json
from typing import Any, get_args

from luthier.data.examples import Finding, Message, Role, Row, ToolCall
from luthier.data.reading import Report, is_nan

ROLES: tuple[str, ...] = get_args(Role)


class Turns:
    """Builds the messages of one row, and reports everything wrong with them."""

    def __init__(self, row: Row, report: Report) -> None:
        self.row, self._report = row, report
        self.is_broken = False
        given = row.fields.get("id")
        self.id = str(given) if isinstance(given, str | int) else f"{_stem(row)}:{row.place.line}"
        self.slices: dict[str, str] = {}

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
            if not is_json(arguments):
                self.wrong(
                    "broken-tool-call", f"{field}[{i}].function.arguments",
                    "is not JSON", "the arguments as JSON text",
                )  # fmt: skip
                continue
            calls.append(ToolCall(str(call.get("id") or ""), function["name"], arguments))
        return tuple(calls)

    def tools(self, value: Any) -> tuple[dict[str, Any], ...]:
        """The definitions of the tools a conversation may call."""
        tools: Any = value or []
        tools = json.loads(tools) if is_json(tools) else tools  # a cell of a CSV
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            self.wrong("wrong-type", "tools", f"is {shape(tools)}", "a list of tool definitions")
            return ()
        return tuple(tools)

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


def is_json(text: Any) -> bool:
    """Whether a value is a text that holds JSON."""
    try:
        return isinstance(text, str) and json.loads(text) is not None
    except (ValueError, RecursionError):
        return False


def shape(value: Any) -> str:
    """What a value is, in words."""
    return "an empty list" if value == [] else f"a {type(value).__name__}"


def _stem(row: Row) -> str:
    return row.place.file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
