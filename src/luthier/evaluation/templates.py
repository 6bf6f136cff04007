"""Texts with places to fill in: {{item.FIELD}} of the row, {{sample.output_text}} of the answer.

Each place is filled once, with a value or what a path leads to ({{item.turns[0].text}}); what is
filled in is never read as a template, whatever it says. No expression is evaluated.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

PLACE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
STEP = re.compile(r"\.?([^.\[\]\s]+)|\[(\d+)\]")
NAMESPACES = ("item", "sample")


class MissingError(Exception):
    """A template names what is not there; says what."""


def fill(template: str, known: Mapping[str, Any]) -> str:
    """The template with all its places filled in. Raises MissingError."""
    return PLACE.sub(lambda found: _as_text(look_up(found.group(1), known)), template)


def look_up(path: str, known: Mapping[str, Any]) -> Any:
    """What a path such as item.answers[0] leads to. Raises MissingError."""
    value: Any = known
    end = 0
    for step in STEP.finditer(path):
        if step.start() != end:
            break
        end = step.end()
        key: Any = step.group(1) if step.group(2) is None else int(step.group(2))
        try:
            value = value[int(key) if isinstance(value, list | tuple) else key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise MissingError(f"there is no {path}") from None
    if end != len(path) or path.split(".")[0].split("[")[0] not in NAMESPACES:
        raise MissingError(f"{path!r} is no path; expected item.FIELD or sample.FIELD")
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
