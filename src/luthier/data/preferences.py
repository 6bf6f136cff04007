"""Preference rows: a prompt and two answers, one of them preferred.

Four layouts become one: prompt + chosen + rejected as texts or messages, whole conversations
chosen + rejected that differ in their last turn, and OpenAI's input + preferred_output +
non_preferred_output (or ..._completion).
"""

import json
from collections.abc import Sequence
from typing import Any

from luthier.data.examples import Message, Preference
from luthier.data.turns import Turns, is_json, shape


def read_preference(turns: Turns, fields: dict[str, Any]) -> Preference | None:
    """The preference of a row, or None after reporting everything wrong with it."""
    given, tools = fields.get("input"), fields.get("tools")
    prompt: list[Message] = []
    suffix = next((x for x in ("output", "completion") if f"non_preferred_{x}" in fields), "")
    if suffix:
        if not isinstance(given, dict):
            turns.wrong("wrong-type", "input", f"is {shape(given)}", 'an object {"messages": ...}')
            return None
        tools = given.get("tools")
        prompt = _messages(turns, given.get("messages"), "input.messages", "user")
        chosen_name, rejected_name = f"preferred_{suffix}", f"non_preferred_{suffix}"
    else:
        if "prompt" in fields:
            prompt = _messages(turns, fields["prompt"], "prompt", "user")
        chosen_name, rejected_name = "chosen", "rejected"
    if fields.get("system"):
        prompt.insert(0, Message("system", turns.text(fields["system"], "system")))
    chosen = _messages(turns, fields[chosen_name], chosen_name, "assistant")
    rejected = _messages(turns, fields[rejected_name], rejected_name, "assistant")
    if not turns.is_broken and not suffix and "prompt" not in fields:
        shared = _num_shared(chosen, rejected)
        prompt, chosen, rejected = prompt + chosen[:shared], chosen[shared:], rejected[shared:]
    known = turns.tools(tools)
    if not turns.is_broken:
        _check_answers(turns, prompt, {chosen_name: chosen, rejected_name: rejected})
    if turns.is_broken:
        return None
    return Preference(
        turns.id, turns.row.place, tuple(prompt), chosen[0], rejected[0], known, turns.slices
    )


def _messages(turns: Turns, value: Any, field: str, role: str) -> list[Message]:
    """The messages of a text, of one message, or of a list of them."""
    if is_json(value) and str(value).lstrip()[0] in "[{" and '"role"' in value:
        value = json.loads(value)  # a cell of a CSV
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return [Message("assistant" if role == "assistant" else "user", turns.text(value, field))]
    if not value:
        turns.wrong("wrong-type", field, "is an empty list", "a text or messages")
    found = [turns.message(item, f"{field}[{i}]") for i, item in enumerate(value)]
    return [message for message in found if message is not None]


def _num_shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Messages that two conversations begin with alike, at least the last turn of each left out."""
    limit = min(len(chosen), len(rejected)) - 1
    return next((i for i in range(limit) if chosen[i] != rejected[i]), limit)


def _check_answers(
    turns: Turns, prompt: Sequence[Message], answers: dict[str, list[Message]]
) -> None:
    if not any(message.role == "user" for message in prompt):
        turns.wrong("no-prompt", "prompt", "holds no user turn", "what both answers reply to")
    for field, messages in answers.items():
        roles = [message.role for message in messages]
        if roles != ["assistant"]:
            turns.wrong(
                "wrong-answer", field, f"has the roles {', '.join(roles) or 'none'}",
                "one assistant turn after the prompt", "put the turns before it into the prompt",
            )  # fmt: skip
    (first, chosen), (second, rejected) = answers.items()
    if chosen == rejected:
        turns.wrong(
            "equal-answers", second, f"is the same as {first}", "two different answers",
            "remove the row: nothing can be learnt from it",
        )  # fmt: skip
