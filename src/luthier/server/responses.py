"""/v1/responses, stateless: the same answers as chats give, in the other form.

Nothing is stored: a conversation is sent whole with each request.
"""

import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luthier.jobs import new_id
from luthier.server.access import Asker
from luthier.server.answering import Asking, Choice, logprobs_of, whole
from luthier.server.asking import ChatRequest, FunctionSpec, Schema
from luthier.server.chats import ask_chat
from luthier.server.errors import ApiError, bug
from luthier.server.metadata import Metadata
from luthier.server.wire import Wire

TEXTS = ("input_text", "output_text", "text")
LOGPROBS = "message.output_text.logprobs"
"""What `include` asks for log-likelihoods with."""

log = logging.getLogger("luthier.server")
router = APIRouter()


class FunctionTool(FunctionSpec):
    """A tool, its name beside its type."""

    type: Literal["function"]


class NamedTool(BaseModel):
    """The one tool that is to be called."""

    type: Literal["function"]
    name: str


class TextFormat(Schema):
    """The form that an answer must have."""

    type: Literal["text", "json_object", "json_schema"] = "text"


class TextConfig(BaseModel):
    """How text is to be."""

    format: TextFormat = TextFormat()


class Item(BaseModel):
    """A part of a conversation."""

    model_config = ConfigDict(extra="allow")
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[dict[str, Any]] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[dict[str, Any]] = ""


class ResponseRequest(BaseModel):
    """The body of a request for a response; unknown fields are ignored."""

    model: str
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[str] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig = TextConfig()
    metadata: Metadata | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    background: bool | None = None

    @property
    def has_logprobs(self) -> bool:
        """Whether log-likelihoods are told."""
        return LOGPROBS in (self.include or ())

    def chat(self) -> ChatRequest:
        """The chat that asks the same. Raises ApiError."""
        for name in ("store", "previous_response_id", "background"):
            if getattr(self, name):
                message = f"{name} is not supported: nothing is stored; send the whole input."
                raise ApiError(400, message, param=name, code="unsupported")
        messages: list[Wire] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            messages.append({"role": "user", "content": self.input})
        else:
            messages += _messages(self.input)
        asked = {
            "model": self.model, "messages": messages, "temperature": self.temperature,
            "top_p": self.top_p, "max_completion_tokens": self.max_output_tokens,
            "logprobs": self.has_logprobs, "top_logprobs": self.top_logprobs,
            "parallel_tool_calls": self.parallel_tool_calls,
            "tools": [
                {"type": "function",
                 "function": tool.model_dump(exclude={"type"}, exclude_unset=True)}
                for tool in self.tools or ()
            ] or None,
            "tool_choice": {"type": "function", "function": {"name": self.tool_choice.name}}
            if isinstance(self.tool_choice, NamedTool) else self.tool_choice,
            "response_format": _format(self.text.format),
        }  # fmt: skip
        try:
            return ChatRequest.model_validate(asked)
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error


def _format(wanted: TextFormat) -> Wire:
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    return {"type": "json_schema", "json_schema": {"name": wanted.name, "schema": wanted.content}}


def _messages(items: list[Item]) -> list[Wire]:
    """Items as messages; calls one after the other are one message's. Raises ApiError."""
    found: list[Wire] = []
    for item in items:
        if item.type == "function_call":
            call = {"id": item.call_id, "type": "function",
                    "function": {"name": item.name, "arguments": item.arguments}}  # fmt: skip
            if not (found and found[-1]["role"] == "assistant" and "tool_calls" in found[-1]):
                found.append({"role": "assistant", "content": None, "tool_calls": []})
            found[-1]["tool_calls"].append(call)
        elif item.type == "function_call_output":
            found.append(
                {"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)}
            )
        elif item.type == "message" and item.role is not None:
            found.append({"role": item.role, "content": _text(item.content or "")})
        elif item.type != "reasoning":
            raise ApiError(400, f"Input of type {item.type} cannot be read.", param="input")
    return found


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    if other := [part.get("type") for part in content if part.get("type") not in TEXTS]:
        raise ApiError(400, f"Content of type {other[0]} cannot be read.", param="input")
    return "".join(str(part.get("text", "")) for part in content)


@router.post("/responses")
async def respond(body: ResponseRequest, request: Request, caller: Asker) -> Any:
    """What a model says to a conversation."""
    asking = await ask_chat(body.chat(), caller)
    telling = _Telling(body, asking)
    if body.stream:
        return StreamingResponse(telling.events(), media_type="text/event-stream")
    await whole(asking, request)
    return telling.response()


@dataclass
class _Telling:
    """A response, whole or in events."""

    body: ResponseRequest
    asking: Asking
    id: str = field(default_factory=lambda: new_id("resp_", 32))
    message_id: str = field(default_factory=lambda: new_id("msg_", 32))
    created: int = field(default_factory=lambda: int(time.time()))
    _number: int = -1
    _calls: list[Wire] = field(default_factory=list)

    @property
    def choice(self) -> Choice:
        return self.asking.choices[0]

    def response(self, status: str = "") -> Wire:
        """The Response."""
        body, is_cut = self.body, self.choice.reason == "length"
        output = [] if status else self._output()
        usage = {
            "input_tokens": self.asking.num_prompt,
            "input_tokens_details": {"cached_tokens": self.asking.num_cached,
                                     "cache_write_tokens": 0},
            "output_tokens": self.asking.num_written,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.asking.num_prompt + self.asking.num_written,
        }  # fmt: skip
        return {
            "id": self.id, "object": "response", "created_at": self.created,
            "status": status or ("incomplete" if is_cut else "completed"), "error": None,
            "incomplete_details": {"reason": "max_output_tokens"}
            if is_cut and not status else None,
            "instructions": body.instructions, "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {}, "model": body.model, "output": output,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None, "store": False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "text": {"format": body.text.format.model_dump(by_alias=True, exclude_unset=True)
                     or {"type": "text"}},
            "tool_choice": body.tool_choice.model_dump()
            if isinstance(body.tool_choice, NamedTool) else body.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_logprobs": body.top_logprobs, "truncation": "disabled", "background": False,
            "usage": None if status else usage, "user": None,
        }  # fmt: skip

    def _output(self) -> list[Wire]:
        found = [] if self.choice.calls and not self.choice.text else [self._message("completed")]
        return found + self._called()

    def _message(self, status: str) -> Wire:
        is_begun = status == "in_progress"
        return {
            "id": self.message_id, "type": "message", "role": "assistant",
            "status": "incomplete" if self.choice.reason == "length" else status,
            "content": [] if is_begun else [self._part(self.choice.text)],
        }  # fmt: skip

    def _part(self, text: str) -> Wire:
        logprobs = []
        if text and self.body.has_logprobs:
            logprobs = logprobs_of(self.asking.opened, self.choice.pieces)
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}

    def _called(self) -> list[Wire]:
        if not self._calls:
            self._calls = [
                {"id": new_id("fc_", 32), "call_id": new_id("call_"), "type": "function_call",
                 "name": name, "arguments": arguments, "status": "completed"}
                for name, arguments in self.choice.calls
            ]  # fmt: skip
        return self._calls

    async def events(self) -> AsyncIterator[str]:
        """The response as it comes."""
        try:
            yield self._event("response.created", response=self.response("in_progress"))
            yield self._event("response.in_progress", response=self.response("in_progress"))
            has_begun = False
            async for choice, text in self.asking.deltas():
                if not has_begun and (text or (choice.reason and not choice.calls)):
                    has_begun = True
                    for event in self._begin_message():
                        yield event
                if text:
                    yield self._part_event("output_text.delta", delta=text, logprobs=[])
            for event in self._end_message() if has_begun else ():
                yield event
            for index, call in enumerate(self._called(), start=int(has_begun)):
                for event in self._call_events(index, call):
                    yield event
            done = self.response()
            yield self._event(f"response.{done['status']}", response=done)
        except ApiError as error:
            yield self._event("error", **error.body()["error"])
        except RuntimeError:
            log.exception("a stream broke off")
            yield self._event("error", **bug().body()["error"])

    def _begin_message(self) -> list[str]:
        item = self._message("in_progress")
        return [
            self._event("response.output_item.added", output_index=0, item=item),
            self._part_event("content_part.added", part=self._part("")),
        ]

    def _end_message(self) -> list[str]:
        part = self._part(self.choice.text)
        done = self._message("completed")
        return [
            self._part_event("output_text.done", text=part["text"], logprobs=part["logprobs"]),
            self._part_event("content_part.done", part=part),
            self._event("response.output_item.done", output_index=0, item=done),
        ]

    def _call_events(self, index: int, call: Wire) -> list[str]:
        about = {"output_index": index, "item_id": call["id"]}
        begun = {**call, "arguments": "", "status": "in_progress"}
        written, name = call["arguments"], call["name"]
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.function_call_arguments.delta", delta=written, **about),
            self._event("response.function_call_arguments.done", arguments=written, name=name,
                        **about),
            self._event("response.output_item.done", output_index=index, item=call),
        ]  # fmt: skip

    def _part_event(self, kind: str, **content: Any) -> str:
        return self._event(
            f"response.{kind}", item_id=self.message_id, output_index=0, content_index=0, **content
        )

    def _event(self, kind: str, **content: Any) -> str:
        self._number += 1
        told = {**content, "type": kind, "sequence_number": self._number}
        return f"event: {kind}\ndata: {json.dumps(told, ensure_ascii=False)}\n\n"
