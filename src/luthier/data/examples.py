"""The typed values of the data room: rows as found, examples as meant, datasets as frozen.

A `Row` is one line of a file with its position. A `Chat` is the one canonical training unit of
generation: a conversation whose assistant turns are to be learnt. Every format read becomes chats.
Nothing here knows files, tokens or models.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: file as the user named it, line (or record number) from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line as found, before anything is believed about it."""

    place: Place
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with one row: where, which field, what was found, what is accepted."""

    place: Place
    name: str
    """Stable name of the kind of finding, such as "unknown-role"."""
    field: str
    found: str
    accepted: str
    advice: str = ""
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        subject = f"{self.place} {self.field}".rstrip()
        parts = [f"{subject} {self.found}", f"expected {self.accepted}" if self.accepted else ""]
        return "; ".join(part for part in (*parts, self.advice) if part)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the assistant makes: `arguments` is the JSON text as OpenAI's wire has it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat. `weight` 0 keeps an assistant turn out of the loss."""

    role: Role
    content: str
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Chat:
    """One training unit: a conversation, its tools, and the row it came from.

    `id` is the row's own id, or its place in the file; unique within a dataset.
    `slices` are the row's remaining scalar columns, for per-slice evaluation.
    """

    id: str
    place: Place
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    slices: dict[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last assistant turn: what a model is asked with."""
        return self.messages[: self._last_assistant]

    @property
    def target(self) -> Message:
        """The last assistant turn: the reference answer."""
        return self.messages[self._last_assistant]

    @property
    def _last_assistant(self) -> int:
        roles = [message.role for message in self.messages]
        return len(roles) - 1 - roles[::-1].index("assistant")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Chats in three splits, immutable, with the hash of what they say."""

    train: tuple[Chat, ...]
    validation: tuple[Chat, ...]
    test: tuple[Chat, ...]
    files: dict[str, str]
    """Path as given -> SHA-256 of the file's bytes."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical form of all splits; equal content, equal fingerprint."""
        digest = hashlib.sha256()
        for split in ("train", "validation", "test"):
            for chat in getattr(self, split):
                digest.update(f"{split}\x00{canonical(chat)}\n".encode())
        return digest.hexdigest()


def canonical(chat: Chat) -> str:
    """The chat's content as one line of JSON with sorted keys; ids and places left out."""
    messages = [
        {
            "role": message.role,
            "content": message.content,
            "name": message.name,
            "tool_calls": [[call.id, call.name, call.arguments] for call in message.tool_calls],
            "tool_call_id": message.tool_call_id,
            "weight": message.weight,
        }
        for message in chat.messages
    ]
    content = {"messages": messages, "tools": chat.tools}
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
