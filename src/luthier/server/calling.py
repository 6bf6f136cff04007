"""Calls of tools, read from what models write as it comes; and what a call must look like."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.evaluation import Call, calls_in

MARKS = ("<tool_call>", "[TOOL_CALLS]")
"""With what a call begins in a text; one that is nothing but JSON begins with a bracket."""
BRACKETS = ("{", "[")


@dataclass
class CallReader:
    """Parts the text of an answer into what is said, and calls of tools."""

    names: Collection[str]
    """Tools that may be called."""
    most: int | None = None
    """Calls that are wanted at most."""
    _held: str = ""
    _said: str = ""
    _is_call: bool = False

    def add(self, text: str) -> str:
        """What is certain to be said with more text."""
        self._held += text
        if self._is_call:
            return ""
        begins = self._begins()
        if begins is not None:
            self._is_call = True
            return self._release(begins)
        if not (self._said + self._held).strip():
            return ""  # blanks before a call are not said
        return self._release(len(self._held) - self._overlap())

    def end(self, text: str) -> tuple[str, list[Call]]:
        """What is said, and what is called, as no more text comes."""
        said = self.add(text)
        calls = [call for call in calls_in(self._held) if call[0] in self.names]
        if self._is_call and calls:
            return said.rstrip(), calls[: self.most]
        return said + self._release(len(self._held)), []

    def _begins(self) -> int | None:
        """Where a call begins, if one does."""
        if not self._said.strip() and self._held.lstrip().startswith(BRACKETS):
            return 0
        found = [at for mark in MARKS if (at := self._held.find(mark)) >= 0]
        return min(found, default=None)

    def _overlap(self) -> int:
        """Letters at the end that may be the beginning of a mark."""
        sizes = range(min(max(map(len, MARKS)) - 1, len(self._held)), 0, -1)
        return next(
            (n for n in sizes if any(mark.startswith(self._held[-n:]) for mark in MARKS)), 0
        )

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self._said += text
        return text


def schema_of(tools: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    """JSON Schema of a call of one of the tools."""
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    key: tool["function"].get("parameters") or {"type": "object"},
                },
                "required": ["name", key],
                "additionalProperties": False,
            }
            for tool in tools
        ]
    }
