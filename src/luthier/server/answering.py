"""A request under way: its answers as they come from an engine, whole or bit by bit."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from luthier.evaluation import Call
from luthier.pipeline.engines import Answer, Choosing, End, Opened, Piece, Source, TextReader, Told
from luthier.server.access import Caller
from luthier.server.calling import CallReader
from luthier.server.errors import ApiError, no_model
from luthier.server.wire import Wire


@dataclass
class Choice:
    """One of the answers to a request, as it comes."""

    index: int
    reader: TextReader
    call_reader: CallReader | None = None
    """Takes calls of tools out of the text, where the request names any."""
    pieces: list[Piece] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    answer: Answer | None = None
    reason: str = ""
    num_cached: int = 0

    @property
    def text(self) -> str:
        """What was said."""
        return "".join(self.texts)

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
            self.num_cached = told.num_cached
            return self._end(told.reason, self.reader.end())
        self.pieces.append(told)
        text = self.reader.add(told.id)
        if self.reader.is_stopped:
            self.cancel()
            return self._end("stop", text)
        return self._keep(self.call_reader.add(text) if self.call_reader else text)

    def cancel(self) -> None:
        """No more of it is wanted."""
        if self.answer is not None:
            self.answer.cancel()

    def _end(self, reason: str, text: str) -> str:
        if self.call_reader is not None:
            text, self.calls = self.call_reader.end(text)
        self.reason = "tool_calls" if self.calls and reason == "stop" else reason
        return self._keep(text)

    def _keep(self, text: str) -> str:
        self.texts.append(text)
        return text


@dataclass
class Asking:
    """A request under way: its answers, and what is told of them."""

    opened: Opened
    prompts: Sequence[Sequence[int]]
    choices: list[Choice] = field(default_factory=list)
    told: "asyncio.Queue[tuple[Choice, Told]]" = field(default_factory=asyncio.Queue)
    at_end: Callable[["Asking"], Awaitable[None]] | None = None
    """Done when all answers are there."""

    async def deltas(self) -> AsyncIterator[tuple[Choice, str]]:
        """Text as it becomes certain, of all answers; at the end nobody waits for any."""
        try:
            while any(not choice.reason for choice in self.choices):
                choice, told = await self.told.get()
                if choice.reason:
                    continue  # what came behind its stop sequence
                yield choice, choice.take(told)
            if self.at_end is not None:
                await self.at_end(self)
        finally:
            for choice in self.choices:
                choice.cancel()

    @property
    def num_prompt(self) -> int:
        """Tokens it was asked with."""
        return sum(len(ids) for ids in self.prompts)

    @property
    def num_written(self) -> int:
        """Tokens of all answers."""
        return sum(len(choice.pieces) for choice in self.choices)

    @property
    def num_cached(self) -> int:
        """Tokens of prompts that need not be computed."""
        return sum(choice.num_cached for choice in self.choices)

    @property
    def usage(self) -> Wire:
        """Tokens, counted."""
        return {
            "prompt_tokens": self.num_prompt, "completion_tokens": self.num_written,
            "total_tokens": self.num_prompt + self.num_written,
            "prompt_tokens_details": {"cached_tokens": self.num_cached},
        }  # fmt: skip


class Wanted(Protocol):
    """How a request wants to be answered."""

    @property
    def count(self) -> int:
        """Answers to each prompt."""
        ...

    @property
    def limit(self) -> int | None:
        """Tokens that an answer may have, as far as the client says."""
        ...

    @property
    def stops(self) -> list[str]:
        """Texts at which an answer ends."""
        ...

    @property
    def num_logprobs(self) -> int | None:
        """Likeliest tokens told beside each; None where no log-likelihood is."""
        ...

    def choosing(self, number: int, opened: Opened) -> Choosing:
        """How the tokens of one of the answers are chosen. Raises ApiError, ConfigError."""
        ...

    def call_reader(self) -> CallReader | None:
        """What takes calls out of the text of one answer."""
        ...


def source_of(caller: Caller, name: str) -> tuple[Source, str]:
    """Where the model of this name comes from, and what it is made to do. Raises ApiError."""
    models = caller.service.models
    row = models.find(name)
    if row is None:
        return Source(_base(caller, name)), "base"
    first = row
    while (earlier := models.start_of(first)) is not None:
        if (whole := models.folder(earlier) / "model").is_dir():
            return Source(str(whole), models.folder(row)), row.kind
        first = earlier  # whose adapter went on in the one that started from it
    return Source(_base(caller, first.parent), models.folder(row)), row.kind


def _base(caller: Caller, name: str) -> str:
    base = caller.settings.base(name)
    if base is None:
        raise no_model(name)
    return base.source


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
    opened: Opened, prompts: Sequence[Sequence[int]], wanted: Wanted, max_waiting: int
) -> Asking:
    """Ask for all answers of a request. Raises ApiError."""
    engine = opened.engine
    if engine.num_waiting + len(prompts) * wanted.count > max_waiting:
        message = "The server has more requests than it can answer now."
        raise ApiError(429, message, code="queue_full", headers={"retry-after": "2"})
    for ids in prompts:
        _check_prompt(ids, opened)
    loop, asking = asyncio.get_running_loop(), Asking(opened, prompts)
    for number in range(len(prompts) * wanted.count):
        ids = prompts[number // wanted.count]
        choice = Choice(number, TextReader(opened.tokenizer, wanted.stops), wanted.call_reader())
        room = engine.context - len(ids)
        asking.choices.append(choice)
        if wanted.limit == 0:
            choice.reason = "length"
            continue

        def tell(told: Told, choice: Choice = choice) -> None:
            with suppress(RuntimeError):  # the server has ended, and nobody hears it
                loop.call_soon_threadsafe(asking.told.put_nowait, (choice, told))

        choice.answer = opened.ask(
            ids, tell, max_new_tokens=room if wanted.limit is None else min(wanted.limit, room),
            choosing=wanted.choosing(number, opened), num_logprobs=wanted.num_logprobs,
        )  # fmt: skip
    return asking


def _check_prompt(ids: Sequence[int], opened: Opened) -> None:
    context, vocabulary = opened.engine.context, opened.engine.vocabulary
    if len(ids) >= context or not ids:
        message = f"The prompt has {len(ids)} tokens, the model takes 1 to {context - 1}."
        raise ApiError(400, message, param="messages", code="context_length_exceeded")
    if not 0 <= min(ids) <= max(ids) < vocabulary:
        raise ApiError(400, f"Token ids lie between 0 and {vocabulary - 1}.", param="prompt")


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


def logprobs_of(opened: Opened, pieces: Sequence[Piece]) -> list[Wire]:
    """Log-likelihoods of tokens, as chats and responses tell them."""

    def token(number: int, logprob: float | None) -> Wire:
        text = opened.tokenizer.decode([number], keep_special=True)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return [
        {**token(piece.id, piece.logprob),
         "top_logprobs": [token(other, logprob) for other, logprob in piece.top]}
        for piece in pieces
    ]  # fmt: skip
