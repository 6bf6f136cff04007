"""Requests that were answered become candidates: rows that wait for somebody to accept them.

Read are lines of OpenAI's stored completions and of batches, of chat and responses; runs of
LangSmith, observations of Langfuse, and spans of OpenTelemetry's GenAI conventions, each as its
export writes them, one JSON object a line.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from luthier.data import Finding, Place, Report, Row

Fields = dict[str, Any]
LOG_FIELDS = frozenset(("log_id", "log_score", "answered_by"))
"""Fields of a candidate that say where it is from; a row that is learnt from has them no more."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A layout of logs."""

    name: str
    fits: Callable[[Fields], bool]
    read: Callable[[Fields], "Answered | None"]
    """None for what was asked and not answered."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request and its answer, as rows have them."""

    messages: list[Fields]
    tools: list[Fields]
    origin: str
    """Id that the log gave it."""
    model: str = ""
    score: float | None = None
    """What somebody thought of the answer, if the log knows: 1 is good, 0 bad."""


class _NoneError(ValueError):
    """A line of a known layout holds no request with an answer; says why."""


def candidates(rows: Iterable[Row], report: Report) -> Iterator[tuple[Row, Fields]]:
    """Each line of a log with the row it becomes; lines that hold none go to `report`."""
    for row in rows:
        kind = next((kind for kind in KINDS if kind.fits(row.fields)), None)
        if kind is None:
            fields = ", ".join(row.fields) or "none"
            report(_finding(row.place, f"has the fields {fields}", accepted()))
            continue
        try:
            found = kind.read(row.fields)
        except _NoneError as error:
            report(_finding(row.place, f"{kind.name}: {error}", "a request and its answer"))
            continue
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            said = f"{kind.name}: {type(error).__name__} {error}"
            report(_finding(row.place, said, "as the export writes it"))
            continue
        if found is not None:
            yield row, _as_row(found)


def accepted() -> str:
    """The known layouts in words."""
    return ", ".join(kind.name for kind in KINDS)


def _finding(place: Place, found: str, wanted: str) -> Finding:
    return Finding(place, "no-candidate", "", found, wanted, severity="warning")


def _as_row(found: Answered) -> Fields:
    row: Fields = {"messages": found.messages}
    if found.tools:
        row["tools"] = found.tools
    if found.model:
        row["answered_by"] = found.model
    if found.score is not None:
        row["log_score"] = found.score
    row["log_id"] = found.origin
    return row


def _text(content: Any) -> str:
    """Text of a message, in one piece or in several."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text(part) for part in content)
    if isinstance(content, Mapping):
        kept = content.get("text", content.get("content"))
        if kept is None:
            raise _NoneError(f"holds a part of the type {content.get('type')!r}, which is no text")
        return _text(kept)
    raise _NoneError(f"holds a {type(content).__name__} where a text should be")


def _message(given: Mapping[str, Any]) -> Fields:
    """A message as rows have it, from OpenAI's chat or LangChain's."""
    role = given.get("role") or ROLES.get(str(given.get("type")), "")
    message: Fields = {
        "role": ROLES.get(str(role), str(role)),
        "content": _text(given.get("content")),
    }
    calls = given.get("tool_calls") or (given.get("additional_kwargs") or {}).get("tool_calls")
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
        if not message["content"]:
            del message["content"]
    for name in ("tool_call_id", "name"):
        if given.get(name):
            message[name] = given[name]
    return message


ROLES = {
    "human": "user", "ai": "assistant", "model": "assistant", "function": "tool",
    "AIMessage": "assistant", "HumanMessage": "user", "SystemMessage": "system",
    "ToolMessage": "tool", "AIMessageChunk": "assistant",
}  # fmt: skip


def _call(call: Mapping[str, Any]) -> Fields:
    function = call.get("function") or call
    arguments = function.get("arguments", function.get("args", {}))
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    named = {"name": function["name"], "arguments": written}
    return {"id": str(call.get("id") or ""), "type": "function", "function": named}


def _chat(request: Mapping[str, Any], response: Mapping[str, Any], origin: str) -> Answered:
    """A request to chat completions and what came back."""
    choices = response.get("choices") or []
    if not choices:
        raise _NoneError("was not answered")
    if choices[0].get("finish_reason") == "length":
        raise _NoneError("was cut by a limit")
    messages = [_message(message) for message in request.get("messages") or []]
    if not messages:
        raise _NoneError("does not hold what was asked (store the request too)")
    answer = _message({"role": "assistant", **choices[0]["message"]})
    model = str(response.get("model") or request.get("model") or "")
    return Answered([*messages, answer], list(request.get("tools") or []), origin, model)


def _responses(request: Mapping[str, Any], response: Mapping[str, Any], origin: str) -> Answered:
    """A request to the Responses API and what came back."""
    asked = request.get("input")
    given = [{"role": "user", "content": asked}] if isinstance(asked, str) else list(asked or [])
    messages = [_message(message) for message in given]
    instructions = request.get("instructions")
    if instructions:
        messages.insert(0, {"role": "system", "content": _text(instructions)})
    said = [item for item in response.get("output") or [] if item.get("type") == "message"]
    if not said or not messages:
        raise _NoneError("holds no message" if messages else "does not hold what was asked")
    answer = {"role": "assistant", "content": _text(said[-1]["content"])}
    return Answered([*messages, answer], [], origin, str(response.get("model") or ""))


def _stored(fields: Fields) -> Answered | None:
    """OpenAI's stored chat completion, with its messages beside it."""
    request = {**(fields.get("request") or {}), **fields}
    asked = fields.get("input_messages") or fields.get("messages") or request.get("messages")
    return _chat({**request, "messages": asked}, fields, str(fields["id"]))


def _batched(fields: Fields) -> Answered | None:
    """A line of a batch's output, with the line of its input joined to it as `request`."""
    if fields.get("error"):
        raise _NoneError(f"failed: {fields['error']}")
    response = fields["response"]
    if not response:
        raise _NoneError("was not answered")
    if response.get("status_code", 200) != 200:
        raise _NoneError(f"failed with {response['status_code']}")
    request: Any = fields.get("request") or {}
    request = request.get("body", request)
    read = _responses if response["body"].get("object") == "response" else _chat
    return read(request, response["body"], str(fields.get("custom_id") or fields.get("id")))


def _exchanged(fields: Fields) -> Answered | None:
    """A server's own log: request and response as they were, and what somebody thinks of it."""
    response = fields["response"]
    if not response:
        raise _NoneError(
            f"failed: {fields['error']}" if fields.get("error") else "was not answered"
        )
    read = _responses if response.get("object") == "response" else _chat
    origin = str(fields.get("id") or response.get("id") or "")
    found = read(fields["request"], response, origin)
    thought = fields.get("feedback") or {}
    if thought.get("correction"):
        corrected = {"role": "assistant", "content": _text(thought["correction"])}
        return replace(found, messages=[*found.messages[:-1], corrected], score=1.0)
    if thought.get("rating"):
        return replace(found, score=float(thought["rating"] == "up"))
    return found


def _langsmith(fields: Fields) -> Answered | None:
    if fields.get("run_type") not in (None, "llm", "chat_model"):
        return None
    if fields.get("error"):
        raise _NoneError(f"failed: {fields['error']}")
    inputs, outputs = fields["inputs"], fields.get("outputs") or {}
    asked = inputs.get("messages") or inputs.get("input") or []
    while asked and isinstance(asked[0], list):
        asked = asked[0]
    messages = [_message(_langchain(message)) for message in asked]
    generations = outputs.get("generations")
    if generations:
        while isinstance(generations[0], list):
            generations = generations[0]
        answer = generations[0].get("message") or {"content": generations[0].get("text")}
    elif outputs.get("choices"):
        answer = outputs["choices"][0]["message"]
    else:
        answer = outputs.get("output") or outputs.get("messages", [None])[-1]
    if not messages or not answer:
        raise _NoneError("was not answered" if messages else "does not hold what was asked")
    answer = answer if isinstance(answer, Mapping) else {"content": answer}
    said = {**_message(_langchain(answer)), "role": "assistant"}
    scores = [s["avg"] for s in (fields.get("feedback_stats") or {}).values() if "avg" in s]
    model = str((fields.get("extra") or {}).get("metadata", {}).get("ls_model_name") or "")
    score = scores[0] if scores else None
    return Answered([*messages, said], [], str(fields["id"]), model, score)


def _langchain(message: Any) -> Mapping[str, Any]:
    """LangChain writes messages plainly, or as {"id": [..., "HumanMessage"], "kwargs": ...}."""
    if "kwargs" in message:
        return {"type": message["id"][-1], **message["kwargs"]}
    if "data" in message:
        return {**message["data"], "type": message.get("type")}
    return {**message}


def _langfuse(fields: Fields) -> Answered | None:
    if str(fields.get("type")).upper() not in ("GENERATION", "NONE"):
        return None
    asked, said = _parsed(fields["input"]), _parsed(fields.get("output"))
    given = asked.get("messages", []) if isinstance(asked, Mapping) else asked
    given = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not given or not said:
        raise _NoneError("was not answered" if given else "does not hold what was asked")
    said = said[-1] if isinstance(said, list) else said
    answer = said if isinstance(said, Mapping) else {"content": said}
    messages = [
        *(_message(message) for message in given),
        {**_message(answer), "role": "assistant"},
    ]
    tools = asked.get("tools", []) if isinstance(asked, Mapping) else []
    scores = [
        s["value"] for s in fields.get("scores") or [] if isinstance(s.get("value"), int | float)
    ]
    score = float(scores[-1]) if scores else None
    return Answered(messages, tools, str(fields["id"]), str(fields.get("model") or ""), score)


def _parsed(value: Any) -> Any:
    """Exports write some fields as JSON in a text."""
    if isinstance(value, str) and value[:1] in "[{":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _span(fields: Fields) -> Answered | None:
    """A span of OpenTelemetry's GenAI conventions: messages as attributes (1.37 and later)."""
    attributes = _attributes(fields["attributes"])
    asked = _parsed(attributes.get("gen_ai.input.messages"))
    said = _parsed(attributes.get("gen_ai.output.messages"))
    if attributes.get("gen_ai.operation.name") not in (None, "chat", "generate_content"):
        return None
    if not asked or not said:
        raise _NoneError("does not hold its messages (they are captured only when asked for)")
    messages = [_with_parts(message) for message in asked]
    instructions = _parsed(attributes.get("gen_ai.system_instructions"))
    if instructions:
        messages.insert(0, {"role": "system", "content": _text(instructions)})
    if said[0].get("finish_reason") == "length":
        raise _NoneError("was cut by a limit")
    messages.append({**_with_parts(said[0]), "role": "assistant"})
    model = attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model") or ""
    origin = (
        fields.get("spanId") or fields.get("span_id") or fields.get("context", {}).get("span_id")
    )
    return Answered(messages, [], str(origin or ""), str(model))


def _with_parts(message: Mapping[str, Any]) -> Fields:
    """A message of the conventions: parts that are texts, calls, or answers to calls."""
    parts = message.get("parts", [])
    answers = [part for part in parts if part.get("type") == "tool_call_response"]
    if answers:
        said = answers[0].get("response", answers[0].get("result"))
        written = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        return {"role": "tool", "content": written, "tool_call_id": str(answers[0].get("id"))}
    calls = [part for part in parts if part.get("type") == "tool_call"]
    texts = [part for part in parts if part.get("type") == "text"]
    return _message({"role": message["role"], "content": texts, "tool_calls": calls})


def _attributes(given: Any) -> Fields:
    """OTLP writes a list of {"key", "value": {"stringValue"}}; others a plain object."""
    if isinstance(given, Mapping):
        return dict(given)
    return {item["key"]: next(iter(item["value"].values()), None) for item in given}


KINDS = (
    Kind(
        "OpenAI batch output",
        lambda f: "response" in f and ("custom_id" in f or "body" in (f["response"] or {})),
        _batched,
    ),
    Kind("request and response", lambda f: {"request", "response"} <= f.keys(), _exchanged),
    Kind("OpenAI stored completion", lambda f: f.get("object") == "chat.completion", _stored),
    Kind("LangSmith run", lambda f: {"inputs", "outputs"} <= f.keys(), _langsmith),
    Kind("OpenTelemetry GenAI span", lambda f: "attributes" in f, _span),
    Kind("Langfuse observation", lambda f: {"input", "output"} <= f.keys(), _langfuse),
)
"""Known layouts, in the order they are tried."""
