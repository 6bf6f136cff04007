"""The typed values of the data room: rows as found, examples as meant, datasets as frozen.

A `Row` is one line of a file with its position. Every format read becomes one kind of `Example`: a
`Chat` whose assistant turns are to be learnt, a `Preference` of one answer over another, a `Rated`
answer, raw `Text`, a `Labelled` text, or a `Pair` of texts that belong together. All have a prompt
and a target, which is what evaluation asks of them.
Nothing here knows files, tokens or models.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "developer", "user", "assistant", "tool"]
Split = Literal["train", "validation", "test"]
LabelForm = Literal["text", "number", "list"]
"""How a row writes what a text is: a label, a number, or a list of labels."""


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
    choices: tuple[str, ...] = ()
    """Answers to choose from, where the row has a list of them."""

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
class Preference:
    """A prompt and two answers, one of them preferred."""

    id: str
    place: Place
    prompt: tuple[Message, ...]
    target: Message
    """The chosen answer."""
    rejected: Message
    tools: tuple[dict[str, Any], ...] = ()
    slices: dict[str, str] = field(default_factory=dict)

    @property
    def chats(self) -> tuple[Chat, Chat]:
        """The conversation with the chosen answer, and with the rejected one."""
        chosen, rejected = (
            Chat(self.id, self.place, (*self.prompt, answer), self.tools, self.slices)
            for answer in (self.target, self.rejected)
        )
        return chosen, rejected


@dataclass(frozen=True, slots=True)
class Rated:
    """A conversation whose last answer was marked good or bad."""

    chat: Chat
    is_good: bool

    @property
    def id(self) -> str:
        """The row's own id, or its place in the file."""
        return self.chat.id

    @property
    def place(self) -> Place:
        """Where the row stands."""
        return self.chat.place

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the rated answer."""
        return self.chat.prompt

    @property
    def target(self) -> Message:
        """The rated answer."""
        return self.chat.target

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """Tools the model may call."""
        return self.chat.tools

    @property
    def slices(self) -> dict[str, str]:
        """The row's remaining scalar columns."""
        return self.chat.slices


@dataclass(frozen=True, slots=True)
class Text:
    """Raw text, every token of which is to be learnt."""

    id: str
    place: Place
    text: str
    slices: dict[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Nothing comes before a text."""
        return ()

    @property
    def target(self) -> Message:
        """The text, as what a model is to find likely."""
        return Message("assistant", self.text)

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """A text calls no tools."""
        return ()


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, or two, and what it is: labels of a set, or a number."""

    id: str
    place: Place
    text: str
    second: str | None
    """The other text, where the label is about two."""
    labels: tuple[str, ...]
    """As texts, each once; exactly one unless they were a list."""
    form: LabelForm = "text"
    slices: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, or both."""
        return (self.text,) if self.second is None else (self.text, self.second)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What is to be labelled."""
        return tuple(Message("user", text) for text in self.texts)

    @property
    def target(self) -> Message:
        """The labels, as an answer would name them."""
        return Message("assistant", ", ".join(self.labels))

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """A label calls no tools."""
        return ()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts that belong together, or a number that says how alike they are."""

    id: str
    place: Place
    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    """Texts that do not belong to the anchor."""
    score: float | None = None
    """How alike anchor and positive are; None where they belong together."""
    slices: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, the anchor first."""
        return (self.anchor, self.positive, *self.negatives)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What is asked for; of a scored pair both texts."""
        asked = (self.anchor,) if self.score is None else (self.anchor, self.positive)
        return tuple(Message("user", text) for text in asked)

    @property
    def target(self) -> Message:
        """What is to be found."""
        found = self.positive if self.score is None else repr(self.score)
        return Message("assistant", found)

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """A pair calls no tools."""
        return ()


@dataclass(frozen=True, slots=True)
class Query:
    """A question to a collection of texts, and which of them answer it."""

    id: str
    place: Place
    text: str
    relevant: tuple[tuple[str, float], ...]
    """Name of each text that answers it, and how well."""
    slices: dict[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The question."""
        return (Message("user", self.text),)

    @property
    def target(self) -> Message:
        """Names of the texts to be found, best first."""
        ordered = sorted(self.relevant, key=lambda named: -named[1])
        return Message("assistant", ", ".join(name for name, _ in ordered))

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """A question to a collection calls no tools."""
        return ()


Example = Chat | Preference | Rated | Text | Labelled | Pair | Query


@dataclass(frozen=True, slots=True)
class Dataset:
    """Examples of one kind in three splits, immutable, with the hash of what they say."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    files: dict[str, str]
    """Path as given -> SHA-256 of the file's bytes."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical form of all splits; equal content, equal fingerprint."""
        digest = hashlib.sha256()
        for split in ("train", "validation", "test"):
            for example in getattr(self, split):
                digest.update(f"{split}\x00{canonical(example)}\n".encode())
        return digest.hexdigest()


def as_chat(example: Example) -> Chat:
    """The conversation with an example's reference answer."""
    match example:
        case Preference():
            return example.chats[0]
        case Rated():
            return example.chat
        case Chat():
            return example
        case Text() | Labelled() | Pair() | Query():
            raise TypeError(f"{example.id} is no conversation")


def canonical(example: Example) -> str:
    """The example's content as one line of JSON with sorted keys; ids and places left out."""
    content: dict[str, Any]
    match example:
        case Chat():
            content = _chat_content(example)
        case Rated():
            content = {**_chat_content(example.chat), "is_good": example.is_good}
        case Preference():
            chosen, rejected = (_chat_content(chat) for chat in example.chats)
            content = {**chosen, "rejected": rejected["messages"][-1]}
        case Text():
            content = {"text": example.text}
        case Labelled():
            content = {"texts": example.texts, "labels": example.labels, "form": example.form}
        case Pair():
            content = {"texts": example.texts, "score": example.score}
        case Query():
            content = {"text": example.text, "relevant": example.relevant}
    return json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def example_key(example: Example) -> str:
    """16 hexadecimal digits that say what the example says, wherever it stands."""
    return hashlib.sha256(canonical(example).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _chat_content(chat: Chat) -> dict[str, Any]:
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
    content: dict[str, Any] = {"messages": messages, "tools": chat.tools}
    return {**content, "choices": chat.choices} if chat.choices else content
