"""/v1/chat/completions and /v1/completions: what follows, whole or as it comes."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from luthier.jobs import new_id
from luthier.pipeline.engines import Answer, End, Opened, Piece, Source, TextReader, Told
from luthier.server.access import Asker, Caller
from luthier.server.asking import AnswerRequest, ChatRequest, CompletionRequest
from luthier.server.errors import ApiError, bug, no_model
from luthier.server.wire import Wire
from luthier.tokens import encode_prompt

COMPLETION_TOKENS = 16
"""Tokens of a completion where the client says nothing: the protocol's own default."""

log = logging.getLogger("luthier.server")
router = APIRouter()


@dataclass
class Choice:
    """One of the answers to a request, as it comes."""

    index: int
    reader: TextReader
    pieces: list[Piece] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    answer: Answer | None = None
    reason: str = ""
    num_cached: int = 0

    def take(self, told: Told) -> str:
        """The text that is certain with what was told; `reason` says when it was the last.

        Raises what the engine raises, ApiError where it was closed.
        """
        if isinstance(told, Exception):
            raise told
        if isinstance(told, End):
            if told.reason == "cancelled":
                message = "The model was put away while it answered; try again."
                raise ApiError(503, message, headers={"retry-after": "1"})
            self.reason, self.num_cached = told.reason, told.num_cached
            return self._keep(self.reader.end())
        self.pieces.append(told)
        text = self._keep(self.reader.add(told.id))
        if self.reader.is_stopped:
            self.reason = "stop"
            self.cancel()
        return text

    def cancel(self) -> None:
        """No more of it is wanted."""
        if self.answer is not None:
            self.answer.cancel()

    def _keep(self, text: str) -> str:
        self.texts.append(text)
        return text


@dataclass
class Asking:
    """A request under way: its answers, and what is told of them."""

    opened: Opened
    prompts: Sequence[Sequence[int]]
    choices: list[Choice]
    told: "asyncio.Queue[tuple[Choice, Told]]"

    async def deltas(self) -> AsyncIterator[tuple[Choice, str]]:
        """Text as it becomes certain, of all answers; at the end nobody waits for any."""
        try:
            while any(not choice.reason for choice in self.choices):
                choice, told = await self.told.get()
                if choice.reason:
                    continue  # what came behind its stop sequence
                yield choice, choice.take(told)
        finally:
            for choice in self.choices:
                choice.cancel()

    @property
    def usage(self) -> Wire:
        """Tokens, counted."""
        prompt = sum(len(ids) for ids in self.prompts)
        written = sum(len(choice.pieces) for choice in self.choices)
        cached = sum(choice.num_cached for choice in self.choices)
        return {
            "prompt_tokens": prompt, "completion_tokens": written,
            "total_tokens": prompt + written, "prompt_tokens_details": {"cached_tokens": cached},
        }  # fmt: skip


def source_of(caller: Caller, name: str) -> tuple[Source, str]:
    """Where the model of this name comes from, and what it is made to do. Raises ApiError."""
    row = caller.service.models.find(name)
    base = caller.settings.base(row.parent if row else name)
    if base is None:
        raise no_model(name)
    if row is None:
        return Source(base.source), "base"
    folder = caller.service.storage.folder
    if folder is None:
        raise ApiError(501, "Models in remote storage are not answered from yet.", param="model")
    return Source(base.source, folder / row.place), row.kind


def open_model(caller: Caller, name: str) -> Opened:
    """The model of this name that writes, loaded. Raises ApiError."""
    source, kind = source_of(caller, name)
    if kind == "read":
        message = f"{name} reads texts, and writes none; ask it by /v1/classify or /v1/embeddings."
        raise ApiError(400, message, param="model")
    if caller.engines is None:
        raise no_model(name)
    return caller.engines.open(source)


def begin(
    opened: Opened, prompts: Sequence[Sequence[int]], body: AnswerRequest, limit: int | None,
    num_logprobs: int | None, max_waiting: int,
) -> Asking:  # fmt: skip
    """Ask for all answers of a request. Raises ApiError."""
    engine, count = opened.engine, body.n or 1
    vocabulary = engine.model.head.weight.shape[0]
    if engine.num_waiting + len(prompts) * count > max_waiting:
        message = "The server has more requests than it can answer now."
        raise ApiError(429, message, code="queue_full", headers={"retry-after": "2"})
    for ids in prompts:
        if len(ids) >= engine.context or not ids:
            message = (
                f"The prompt has {len(ids)} tokens, the model takes 1 to {engine.context - 1}."
            )
            raise ApiError(400, message, param="messages", code="context_length_exceeded")
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            raise ApiError(400, f"Token ids lie between 0 and {vocabulary - 1}.", param="prompt")
    loop = asyncio.get_running_loop()
    asking = Asking(opened, prompts, [], asyncio.Queue())
    for number in range(len(prompts) * count):
        ids, choice = (
            prompts[number // count],
            Choice(number, TextReader(opened.tokenizer, body.stops)),
        )
        room = engine.context - len(ids)
        asking.choices.append(choice)
        if limit == 0:
            choice.reason = "length"
            continue

        def tell(told: Told, choice: Choice = choice) -> None:
            loop.call_soon_threadsafe(asking.told.put_nowait, (choice, told))

        choice.answer = opened.ask(
            ids, tell, max_new_tokens=room if limit is None else min(limit, room),
            choosing=body.choosing(number, opened), num_logprobs=num_logprobs,
        )  # fmt: skip
    return asking


async def whole(asking: Asking, request: Request) -> None:
    """Wait until all answers are there; a client that goes away ends them."""

    async def read() -> None:
        async for _ in asking.deltas():
            pass

    reading = asyncio.ensure_future(read())
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((reading, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise ApiError(499, "The client went away.")
        await reading
    finally:
        for task in (reading, leaving):
            task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def events(asking: Asking, chunks: "Chunks") -> AsyncIterator[str]:
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
        """What is said, and why nothing more is."""
        found = []
        if text:
            found.append(self._chunk(choice, {"content": text}))
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
            logprobs = logprobs_of(self.opened, choice.pieces[start:])
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


def logprobs_of(opened: Opened, pieces: Sequence[Piece]) -> Wire:
    """Log-likelihoods of tokens, as a chat tells them."""

    def token(number: int, logprob: float | None) -> Wire:
        text = opened.tokenizer.decode([number], keep_special=True)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {
        "content": [
            {**token(piece.id, piece.logprob),
             "top_logprobs": [token(other, logprob) for other, logprob in piece.top]}
            for piece in pieces
        ],
        "refusal": None,
    }  # fmt: skip


@router.post("/chat/completions")
async def chat(body: ChatRequest, request: Request, caller: Asker) -> Any:
    """The next message of a conversation."""
    opened = await run_in_threadpool(open_model, caller, body.model)
    messages = [message.message() for message in body.messages]
    ids = await run_in_threadpool(encode_prompt, opened.tokenizer, messages, body.tools or ())
    waiting = caller.settings.limits.waiting
    asking = begin(opened, [ids], body, body.limit, body.num_logprobs, waiting)
    about = {"id": new_id("chatcmpl-"), "created": int(time.time()), "model": body.model,
             "system_fingerprint": None}  # fmt: skip
    if body.stream:
        about["object"] = "chat.completion.chunk"
        has_usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = Chunks(about, opened, body.num_logprobs, has_usage)
        return StreamingResponse(events(asking, chunks), media_type="text/event-stream")
    await whole(asking, request)
    return {
        **about, "object": "chat.completion", "usage": asking.usage,
        "choices": [
            {
                "index": choice.index, "finish_reason": choice.reason,
                "logprobs": None if body.num_logprobs is None
                else logprobs_of(opened, choice.pieces),
                "message": {"role": "assistant", "content": "".join(choice.texts),
                            "refusal": None},
            }
            for choice in asking.choices
        ],
    }  # fmt: skip


@router.post("/completions")
async def complete(body: CompletionRequest, request: Request, caller: Asker) -> Any:
    """What follows texts; with `echo` the texts as well, with `logprobs` how likely tokens are."""
    if body.stream and (body.echo or body.logprobs is not None):
        raise ApiError(400, "echo and logprobs are not streamed.", param="stream")
    opened = await run_in_threadpool(open_model, caller, body.model)
    encode = opened.tokenizer.encode_opening
    prompts = [encode(p) if isinstance(p, str) else p for p in body.prompts]
    limit = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    asking = begin(opened, prompts, body, limit, body.logprobs, caller.settings.limits.waiting)
    about = {"id": new_id("cmpl-"), "object": "text_completion", "created": int(time.time()),
             "model": body.model, "system_fingerprint": None}  # fmt: skip
    if body.stream:
        has_usage = bool(body.stream_options and body.stream_options.include_usage)
        chunks = TextChunks(about, opened, None, has_usage)
        return StreamingResponse(events(asking, chunks), media_type="text/event-stream")
    await whole(asking, request)
    choices = []
    for choice in asking.choices:
        ids = prompts[choice.index // (body.n or 1)] if body.echo else []
        before = opened.tokenizer.decode(list(ids)) if ids else ""
        logprobs = None
        if body.logprobs is not None:
            weigh = opened.engine.weigh
            weighed = await run_in_threadpool(weigh, ids, opened.adapter, body.logprobs)
            first = [Piece(ids[0])] if ids else []
            logprobs = token_logprobs(opened, [*first, *weighed, *choice.pieces])
        choices.append(
            {"index": choice.index, "text": before + "".join(choice.texts), "logprobs": logprobs,
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
