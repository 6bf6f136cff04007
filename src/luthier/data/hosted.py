"""Conversations as hosted services lay them out: Google's contents, and Amazon's Converse.

Text only: their ways of writing tool calls are not read.
"""

from typing import Any

from luthier.data.examples import Message
from luthier.data.turns import Turns, shape


def read_contents(turns: Turns, fields: dict[str, Any]) -> list[Message | None]:
    """`contents` of roles user and model in `parts`, and a `systemInstruction` (Gemini)."""
    value = fields["contents"]
    if not isinstance(value, list) or not value:
        turns.wrong("wrong-type", "contents", f"is {shape(value)}", "a list of contents")
        return []
    messages: list[Message | None] = []
    system = fields.get("systemInstruction")
    if system is not None:
        messages.append(Message("system", _parts(turns, system, "systemInstruction")))
    for i, item in enumerate(value):
        field = f"contents[{i}]"
        role = item.get("role") if isinstance(item, dict) else None
        if role not in ("user", "model"):
            turns.wrong("unknown-role", f"{field}.role", f"is {role!r}", "user or model")
            continue
        text = _parts(turns, item, field)
        messages.append(Message("assistant" if role == "model" else "user", text))
    return messages


def _parts(turns: Turns, value: Any, field: str) -> str:
    parts = value.get("parts") if isinstance(value, dict) else None
    if not isinstance(parts, list) or not parts:
        turns.wrong("wrong-type", f"{field}.parts", f"is {shape(parts)}", "a list of parts")
        return ""
    others = sorted({key for part in parts if isinstance(part, dict) for key in part} - {"text"})
    if others:
        turns.wrong("unknown-part", f"{field}.parts", f"holds {', '.join(others)}", "text alone")
        return ""
    return turns.text(parts, f"{field}.parts")


def read_converse(turns: Turns, fields: dict[str, Any]) -> list[Message | None]:
    """`messages` whose content is a list of texts, and `system` as one (Bedrock)."""
    value = fields["messages"]
    if not isinstance(value, list) or not value:
        turns.wrong("wrong-type", "messages", f"is {shape(value)}", "a list of messages")
        return []
    messages: list[Message | None] = []
    if fields.get("system"):
        messages.append(Message("system", turns.text(fields["system"], "system")))
    return [*messages, *(turns.message(item, f"messages[{i}]") for i, item in enumerate(value))]
