"""Calls of tools, as a protocol gives them or as models write them into their text.

Read are the ways in which chat templates have models write calls: JSON between <tool_call> tags
(Hermes, Qwen, SmolLM), a list after [TOOL_CALLS] (Mistral), and a bare object with a name and
arguments or parameters (Llama). Nothing raises on any text.
"""

import json
import re
from typing import Any

from luthier.data import Example
from luthier.evaluation.json_answers import JsonAnswer, read_json
from luthier.evaluation.values import Prediction

TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
LISTED = re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])", re.DOTALL)
Call = tuple[str, str]
"""Name, and arguments as JSON text."""


def calls_in(text: str) -> list[Call]:
    """The calls that a text makes."""
    tagged = TAGGED.findall(text)
    listed = LISTED.search(text)
    found: list[Call] = []
    for part in tagged or [listed.group(1) if listed else text]:
        try:
            value = json.loads(part)
        except (ValueError, RecursionError):
            continue
        for call in value if isinstance(value, list) else [value]:
            found += _call(call)
    return found


def _call(value: Any) -> list[Call]:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return []
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        return [(value["name"], arguments)]
    return [(value["name"], json.dumps(arguments))] if isinstance(arguments, dict) else []


def judge_calls(prediction: Prediction, example: Example) -> float | None:
    """1 when the answer makes exactly the calls of the reference, in any order; else 0.

    Arguments are compared by value. None where neither makes one; a call where none is wanted is
    wrong.
    """
    wanted = [(call.name, call.arguments) for call in example.target.tool_calls]
    given = list(prediction.tool_calls) or calls_in(prediction.text)
    if not wanted and not given:
        return None
    left = [_meant(call) for call in given]
    for call in map(_meant, wanted):
        if call not in left:
            return 0.0
        left.remove(call)
    return float(not left)


def _meant(call: Call) -> tuple[str, JsonAnswer | str]:
    """A call with its arguments by value; broken ones are equal to none but themselves."""
    name, arguments = call
    return name, read_json(arguments or "{}") or arguments
