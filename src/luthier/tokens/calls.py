"""How a model writes the call of a tool, as its chat template has it.

A call is rendered by the template, and what stands around its JSON is taken from there. A template
that writes no calls is given the form that most have.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from luthier.data import Message, ToolCall
from luthier.errors import TemplateError
from luthier.tokens.tokenizer import Tokenizer

MARKS = ("<tool_call>", "[TOOL_CALLS]")
NAME, KEY, VALUE = "luthier_name", "luthier_key", "luthier_value"
"""Words of the call by which a template's form is found."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """JSON with a name and arguments, and what is around it."""

    before: str = "<tool_call>\n"
    after: str = "\n</tool_call>"
    key: str = "arguments"
    """What the arguments are called."""


def call_form(tokenizer: Tokenizer) -> CallForm:
    """How the model's template writes a call."""
    call = ToolCall("call_0", NAME, json.dumps({KEY: VALUE}))
    asked = Message("user", "?")
    tools = [{"type": "function", "function": {"name": NAME, "parameters": {}}}]
    try:
        text = tokenizer.template.render(
            [asked, Message("assistant", "", tool_calls=(call,))], tools
        )
    except TemplateError:
        return CallForm()
    found = _written(str(text))
    if found is None:
        return CallForm()
    before, value, after = found
    key = next((k for k, v in value.items() if v == {KEY: VALUE}), None)
    if key is None:
        return CallForm()
    ends = [tokenizer.decode([stop], keep_special=True) for stop in tokenizer.stop_ids]
    for end in filter(None, ends):
        after = after.partition(end)[0]
    return CallForm(before, after, key)


def _written(text: str) -> tuple[str, dict[str, Any], str] | None:
    """What stands before a call, the call, and what stands behind it."""
    for opening in re.finditer(r"\{", text):
        try:
            value, end = json.JSONDecoder().raw_decode(text, opening.start())
        except ValueError:
            continue
        if isinstance(value, dict) and value.get("name") == NAME and VALUE in json.dumps(value):
            before = text[: opening.start()]
            mark = next((mark for mark in MARKS if mark in before), None)
            return (before[before.rindex(mark) :] if mark else ""), value, text[end:]
    return None
