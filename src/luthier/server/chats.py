"""/v1/chat/completions and /v1/completions: what follows, whole or as it comes."""

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from luthier.evaluation import Call
from luthier.jobs import new_id
from luthier.pipeline.engines import Opened, Piece
from luthier.server.access import Asker, Caller
from luthier.server.answering import Asking, Choice, begin, logprobs_of, open_model, whole
from luthier.server.asking import ChatRequest, CompletionRequest
from luthier.server.errors import ApiError, bug
from luthier.server.feedback import capture
from luthier.server.wire import Wire
from luthier.tokens import encode_prompt

log = logging.getLogger("luthier.server")
router = APIRouter()


@dataclass
class Chunks:
    """The pieces of a streamed chat."""

    about: Wire
    opened: Opened
    num_logprobs: int | None
    has_usage: bool
    _told: dict[int, int] = field(default_factory=dict)

    def first(self, choice: Choice) -> list[Wire]:
        """Who speaks."""
        return [self._chunk(choice, {"role": "assistant", "content": ""})]

    def next(self, choice: Choice, text: str) -> list[Wire]:
        """What is said and called, and why nothing more is."""
        found = []
        if text:
            found.append(self._chunk(choice, {"content": text}))
        if choice.calls:
            calls = [{"index": i, **call} for i, call in enumerate(calls_told(choice.calls))]
            found.append(self._chunk(choice, {"tool_calls": calls}))
        if choice.reason:
            found.append(self._chunk(choice, {}, choice.reason))
        return found

    def last(self, asking: Asking) -> list[Wire]:
        """The tokens counted, where they are asked for."""
        return [{**self.about, "choices": [], "usage": asking.usage}] if self.has_usage else []

    def _chunk(self, choice: Choice, delta: Wire, reason: str | None = None) -> Wire:
        start = self._told.get(choice.index, 0)
        self._told[choice.index] = len(choice.pieces)
        logprobs = None
        if self.num_logprobs is not None and choice.pieces[start:]:
            logprobs = _logprobs(self.opened, choice.pieces[start:])
        return {
            **self.about,
            "choices": [{"index": choice.index, "delta": delta, "logprobs": logprobs,
                         "finish_reason": reason}],
        }  # fmt: skip


class TextChunks(Chunks):
    """The pieces of a streamed completion."""

    def first(self, choice: Choice) -> list[Wire]:
        """Nobody speaks."""
        return []

    def _chunk(self, choice: Choice, delta: Wire, reason: str | None = None) -> Wire:
        text = delta.get("content", "")
        return {
            **self.about,
            "choices": [{"index": choice.index, "text": text, "logprobs": None,
                         "finish_reason": reason}],
        }  # fmt: skip


async def events(asking: Asking, chunks: Chunks) -> AsyncIterator[str]:
    """An event stream: chunks of all answers, then [DONE]; an error is told where it happens."""
    try:
        for choice in asking.choices:
            for chunk in chunks.first(choice):
                yield _event(chunk)
        async for choice, text in asking.deltas():
            for chunk in chunks.next(choice, text):
                yield _event(chunk)
        for chunk in chunks.last(asking):
            yield _event(chunk)
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield _event(error.body())
    except RuntimeError:
        log.exception("a stream broke off")
        yield _event(bug().body())


def _event(content: Wire) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"


def calls_told(calls: Sequence[Call]) -> list[Wire]:
    """Calls of tools, as chats tell them."""
    return [
        {"id": new_id("call_"), "type": "function",
         "function": {"name": name, "arguments": arguments}}
        for name, arguments in calls
    ]  # fmt: skip


def _logprobs(opened: Opened, pieces: Sequence[Piece]) -> Wire:
    return {"content": logprobs_of(opened, pieces), "refusal": None}


async def ask_chat(body: ChatRequest, caller: Caller) -> Asking:
    """Ask for the next message of a conversation. Raises ApiError."""
    opened = await run_in_threadpool(open_model, caller, body.model)
    messages = [message.message() for message in body.messages]
    ids = await run_in_threadpool(encode_prompt, opened.tokenizer, messages, body.shown)
    return begin(opened, [ids], body, caller.settings.limits.waiting)


def _kept(body: ChatRequest, caller: Caller, answer_id: str) -> Callable[[Asking], Awaitable[None]]:
    """What keeps a chat to learn from it, when it is over."""

    async def keep(asking: Asking) -> None:
        messages = [message.model_dump(exclude_none=True) for message in body.messages]
        request = {"model": body.model, "messages": messages, "tools": body.shown}
        told = [
            {"index": choice.index, "finish_reason": choice.reason, "message": message_of(choice)}
            for choice in asking.choices
        ]
        await capture(caller, answer_id, request, told)

    return keep


@router.post("/chat/completions")
async def chat(body: ChatRequest, request: Request, caller: Asker) -> Any:
    """The next message of a conversation."""
    asking = await ask_chat(body, caller)
    about: Wire = {"id": new_id("chatcmpl-"), "created": int(time.time()), "model": body.model,
             "system_fingerprint": None}  # fmt: skip
    if caller.settings.capture_days is not None and body.store is not False:
        asking.at_end = _kept(body, caller, about["id"])
    if body.stream:
        about["object"] = "chat.completion.chunk"
        has_usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = Chunks(about, asking.opened, body.num_logprobs, has_usage)
        return StreamingResponse(events(asking, chunks), media_type="text/event-stream")
    await whole(asking, request)
    return {
        **about, "object": "chat.completion", "usage": asking.usage,
        "choices": [
            {
                "index": choice.index, "finish_reason": choice.reason,
                "logprobs": None if body.num_logprobs is None
                else _logprobs(asking.opened, choice.pieces),
                "message": message_of(choice),
            }
            for choice in asking.choices
        ],
    }  # fmt: skip


def message_of(choice: Choice) -> Wire:
    """What was answered, as a message."""
    if not choice.calls:
        return {"role": "assistant", "content": choice.text, "refusal": None}
    return {"role": "assistant", "content": choice.text or None, "refusal": None,
            "tool_calls": calls_told(choice.calls)}  # fmt: skip


@router.post("/completions")
async def complete(body: CompletionRequest, request: Request, caller: Asker) -> Any:
    """What follows texts; with `echo` the texts as well, with `logprobs` how likely tokens are."""
    if body.stream and (body.echo or body.logprobs is not None):
        raise ApiError(400, "echo and logprobs are not streamed.", param="stream")
    opened = await run_in_threadpool(open_model, caller, body.model)
    encode = opened.tokenizer.encode_opening
    prompts = [encode(p) if isinstance(p, str) else p for p in body.prompts]
    asking = begin(opened, prompts, body, caller.settings.limits.waiting)
    about = {"id": new_id("cmpl-"), "object": "text_completion", "created": int(time.time()),
             "model": body.model, "system_fingerprint": None}  # fmt: skip
    if body.stream:
        has_usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = TextChunks(about, opened, None, has_usage)
        return StreamingResponse(events(asking, chunks), media_type="text/event-stream")
    await whole(asking, request)
    choices = []
    for choice in asking.choices:
        ids = prompts[choice.index // body.count] if body.echo else []
        before = opened.tokenizer.decode(list(ids)) if ids else ""
        logprobs = None
        if body.logprobs is not None:
            weigh = opened.engine.weigh
            weighed = await run_in_threadpool(weigh, ids, opened.adapter, body.logprobs)
            first = [Piece(ids[0])] if ids else []
            logprobs = token_logprobs(opened, [*first, *weighed, *choice.pieces])
        choices.append(
            {"index": choice.index, "text": before + choice.text, "logprobs": logprobs,
             "finish_reason": choice.reason}
        )  # fmt: skip
    return {**about, "usage": asking.usage, "choices": choices}


def token_logprobs(opened: Opened, pieces: Sequence[Piece]) -> Wire:
    """Log-likelihoods of tokens, as a completion tells them."""

    def text(token: int) -> str:
        return opened.tokenizer.decode([token], keep_special=True)

    tokens = [text(piece.id) for piece in pieces]
    return {
        "tokens": tokens,
        "token_logprobs": [piece.logprob for piece in pieces],
        "top_logprobs": [
            None if piece.logprob is None else {text(other): log for other, log in piece.top}
            for piece in pieces
        ],
        "text_offset": [0, *accumulate(map(len, tokens))][: len(tokens)],
    }
