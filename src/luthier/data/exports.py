"""Examples become rows as others read them: one table of layouts, each with its owner's rules.

What a layout cannot say is a finding, never left out in silence. Rules are those that the services
document (November 2026); that a file passes them here is no promise that it is accepted there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.data.examples import (
    Chat,
    Example,
    Finding,
    Labelled,
    Message,
    Pair,
    Place,
    Preference,
    Text,
)
from luthier.data.reading import Report

Fields = dict[str, Any]


class _CannotSayError(ValueError):
    """A layout has no way to write something; says what."""


@dataclass(frozen=True, slots=True)
class Export:
    """A layout that rows are written in."""

    name: str
    write: Callable[[Example], Fields]
    """Raises _CannotSayError."""
    least: int = 1
    """Rows that a file must hold."""
    most: int | None = None
    max_bytes: int | None = None
    checks: tuple[Callable[[Chat], str], ...] = ()
    """Each says what is wrong with a conversation, or nothing."""


def export_rows(export: Export, examples: Iterable[Example], report: Report) -> Iterator[str]:
    """Lines of JSON in a layout, each with its end; what is wrong goes to `report`.

    Rows of which something is wrong are not among them.
    """
    place, number, size = Place("the export", 0), 0, 0
    for example in examples:
        place = example.place
        try:
            fields = export.write(example)
        except _CannotSayError as error:
            report(Finding(place, "not-in-layout", "", str(error), f"what {export.name} can say"))
            continue
        wrong = [said for check in export.checks for said in _said(check, example)]
        for said in wrong:
            report(Finding(place, "against-rules", "", said, f"what {export.name} accepts"))
        if wrong:
            continue
        line = json.dumps(fields, ensure_ascii=False) + "\n"
        number, size = number + 1, size + len(line.encode())
        yield line
    for found, accepted in _wrong_sizes(export, number, size):
        report(Finding(place, "against-rules", "", f"is the last of {found}", accepted))


def _said(check: Callable[[Chat], str], example: Example) -> list[str]:
    chats = example.chats if isinstance(example, Preference) else (example,)
    return [said for chat in chats if isinstance(chat, Chat) and (said := check(chat))][:1]


def _wrong_sizes(export: Export, number: int, size: int) -> Iterator[tuple[str, str]]:
    """What a file of so many rows and bytes is, and what is accepted."""
    if number < export.least:
        yield f"{number:,} rows", f"{export.least:,} or more"
    if export.most is not None and number > export.most:
        yield f"{number:,} rows", f"{export.most:,} at most"
    if export.max_bytes is not None and size > export.max_bytes:
        yield f"{size / 1e9:.1f} GB", f"{export.max_bytes / 1e9:g} GB at most"


def _chat(example: Example) -> Fields:
    """OpenAI's conversation."""
    if not isinstance(example, Chat):
        raise _CannotSayError(f"is {_kind(example)}, not a conversation")
    fields: Fields = {"messages": [_message(message) for message in example.messages]}
    if example.tools:
        fields["tools"] = list(example.tools)
    return fields


def _message(message: Message) -> Fields:
    fields: Fields = {"role": message.role}
    if message.content or not message.tool_calls:
        fields["content"] = message.content
    if message.name:
        fields["name"] = message.name
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        fields["tool_call_id"] = message.tool_call_id
    if message.role == "assistant" and message.weight != 1:
        fields["weight"] = int(message.weight)
    return fields


def _openai(example: Example) -> Fields:
    """A conversation, or OpenAI's preference."""
    if not isinstance(example, Preference):
        return _chat(example)
    asked: Fields = {"messages": [_message(message) for message in example.prompt]}
    if example.tools:
        asked["tools"] = list(example.tools)
    return {
        "input": asked,
        "preferred_output": [_message(example.target)],
        "non_preferred_output": [_message(example.rejected)],
    }


def _together(example: Example) -> Fields:
    return {"text": example.text} if isinstance(example, Text) else _openai(example)


def _plain(example: Example) -> Chat:
    """A conversation of texts, all of whose answers are learnt."""
    if not isinstance(example, Chat):
        raise _CannotSayError(f"is {_kind(example)}, not a conversation")
    for message in example.messages:
        if message.tool_calls or message.role == "tool":
            raise _CannotSayError("holds tool calls")
        if message.weight != 1:
            raise _CannotSayError("holds an answer with weight 0, which would be learnt")
        if message.name:
            raise _CannotSayError("names a speaker")
    if example.tools:
        raise _CannotSayError("defines tools")
    return example


def _system_and_rest(chat: Chat) -> tuple[str, Sequence[Message]]:
    """The system message, and what follows it."""
    roles = [message.role for message in chat.messages]
    if "developer" in roles or roles.count("system") > 1:
        raise _CannotSayError("holds a developer message, or more than one of the system")
    if roles[0] != "system":
        return "", chat.messages
    return chat.messages[0].content, chat.messages[1:]


def _contents(example: Example) -> Fields:
    """Gemini's."""
    system, rest = _system_and_rest(_plain(example))
    fields: Fields = {}
    if system:
        fields["systemInstruction"] = {"role": "system", "parts": [{"text": system}]}
    fields["contents"] = [
        {"role": "model" if m.role == "assistant" else "user", "parts": [{"text": m.content}]}
        for m in rest
    ]
    return fields


def _converse(example: Example) -> Fields:
    """Bedrock's."""
    system, rest = _system_and_rest(_plain(example))
    fields: Fields = {"schemaVersion": "bedrock-conversation-2024"}
    if system:
        fields["system"] = [{"text": system}]
    fields["messages"] = [{"role": m.role, "content": [{"text": m.content}]} for m in rest]
    return fields


def _sharegpt(example: Example) -> Fields:
    system, rest = _system_and_rest(_plain(example))
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": names[m.role], "value": m.content} for m in rest]
    return {**({"system": system} if system else {}), "conversations": turns}


def _alpaca(example: Example) -> Fields:
    system, rest = _system_and_rest(_plain(example))
    if [m.role for m in rest] != ["user", "assistant"]:
        raise _CannotSayError("is no single question with its answer")
    fields = {"instruction": rest[0].content, "input": "", "output": rest[1].content}
    return {**({"system": system} if system else {}), **fields}


def _kind(example: Example) -> str:
    names = {Preference: "a preference", Text: "a raw text", Labelled: "a labelled text",
             Pair: "a pair of texts"}  # fmt: skip
    return names.get(type(example), "a rated answer")


def _ends_with_answer(chat: Chat) -> str:
    return "" if chat.messages[-1].role == "assistant" else "does not end with an answer"


def _alternates(chat: Chat) -> str:
    roles = [message.role for message in chat.messages if message.role != "system"]
    wanted = ["user", "assistant"] * len(roles)
    return "" if roles == wanted[: len(roles)] else "does not alternate user and assistant"


def _knows_roles(chat: Chat) -> str:
    others = {m.role for m in chat.messages} - {"system", "user", "assistant", "tool"}
    return f"holds a message of role {', '.join(others)}" if others else ""


def _has_few_tools(chat: Chat) -> str:
    return f"defines {len(chat.tools)} tools; 128 at most" if len(chat.tools) > 128 else ""


RESERVED = ("User:", "Bot:", "Assistant:", "System:", "<image>", "<video>", "[EOS]")


def _is_free_of_markers(chat: Chat) -> str:
    begun = next((r for m in chat.messages for r in RESERVED if m.content.startswith(r)), "")
    return f"holds a message that begins with {begun}, which is reserved" if begun else ""


EXPORTS = {
    export.name: export
    for export in (
        Export("openai", _openai, least=10, checks=(_has_few_tools,)),
        Export("azure", _openai, least=10, checks=(_has_few_tools,)),
        Export("together", _together, max_bytes=50_100_000_000, checks=(_knows_roles,)),
        Export("fireworks", _openai, least=3, most=3_000_000, checks=(_knows_roles,)),
        Export("vertex", _contents, max_bytes=10**9, checks=(_ends_with_answer,)),
        Export(
            "bedrock", _converse,
            checks=(_alternates, _ends_with_answer, _is_free_of_markers),
        ),
        Export("sharegpt", _sharegpt),
        Export("alpaca", _alpaca),
    )
}  # fmt: skip
"""Name -> layout."""
