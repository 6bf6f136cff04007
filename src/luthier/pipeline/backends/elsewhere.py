"""Requests to an engine in another process, by HTTP: each answer is a stream of events."""

import asyncio
import json
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

import httpx

from luthier.errors import ModelError
from luthier.models import Answer, Asked, End, Piece, Told

TIMEOUT = httpx.Timeout(600, connect=10)
MOST_ERROR = 300
"""Letters of an error that are passed on."""


class Stream(Protocol):
    """An answer as it comes."""

    url: str
    body: dict[str, Any]
    """What asks for it."""

    def read(self, event: dict[str, Any]) -> Sequence[Piece | End]:
        """What an event tells."""
        ...

    def end(self) -> None:
        """Nothing more comes, whatever the reason."""
        ...


class Requested(Answer):
    """An answer that comes from elsewhere; given up, the stream is closed."""

    def __init__(self, asked: Asked, tell: Callable[[Told], None]) -> None:
        super().__init__(asked, tell)
        self.give_up: Callable[[], object] = lambda: None
        self.has_begun = False

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        super().cancel()
        self.give_up()


class Elsewhere(ABC):
    """Asks an engine in another process; one thread listens to all answers."""

    def __init__(self) -> None:
        self._answers: set[Requested] = set()
        self.asked: Counter[str] = Counter()
        """Adapter -> answers that are being written with it."""
        self._loop = asyncio.new_event_loop()
        self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, limits=_unlimited())
        self._thread = threading.Thread(target=self._listen, name="elsewhere", daemon=True)
        self._thread.start()
        self._is_over = False

    @abstractmethod
    def stream(self, asked: Asked) -> Stream:
        """An answer, to be asked for."""

    @property
    def headers(self) -> dict[str, str]:
        """Sent with each request."""
        return {}

    @property
    def num_waiting(self) -> int:
        """Requests that nothing has come of yet."""
        return sum(not answer.has_begun for answer in list(self._answers))

    def submit(self, asked: Asked, tell: Callable[[Told], None]) -> Answer:
        """Ask; what comes is told in the thread that listens."""
        answer = Requested(asked, tell)
        if self._is_over:
            tell(End("cancelled"))
            return answer
        stream = self.stream(asked)
        self._answers.add(answer)
        self.asked[asked.adapter] += 1
        asking = asyncio.run_coroutine_threadsafe(self._answer(answer, stream), self._loop)
        answer.give_up = asking.cancel
        return answer

    def post(self, url: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for something at once. Raises ModelError where it is refused or nobody answers."""

        async def ask() -> dict[str, Any]:
            reply = await self._client.post(url, json=body, headers=self.headers)
            _check(reply, url)
            return dict(reply.json()) if _is_json(reply) else {}

        return self._wait(ask(), url)

    def get(self, url: str) -> dict[str, Any]:
        """Read something. Raises ModelError where nobody answers."""

        async def ask() -> dict[str, Any]:
            reply = await self._client.get(url, headers=self.headers)
            _check(reply, url)
            return dict(reply.json())

        return self._wait(ask(), url)

    def close(self) -> None:
        """End; requests under way are told that they are cancelled."""
        self._is_over = True
        for answer in list(self._answers):
            answer.give_up()
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, asking: "Coroutine[Any, Any, dict[str, Any]]", url: str) -> dict[str, Any]:
        try:
            return asyncio.run_coroutine_threadsafe(asking, self._loop).result()
        except (httpx.HTTPError, ValueError) as error:
            raise _unreachable(url, error) from error

    def _listen(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _answer(self, answer: Requested, stream: Stream) -> None:
        end: Told = End("cancelled")
        try:
            async for told in self._read(answer, stream):
                if isinstance(told, End):
                    end = told
                    break
                answer.has_begun = True
                answer.tell(told)
        except ModelError as error:
            end = error
        except (httpx.HTTPError, ValueError) as error:
            end = _unreachable(stream.url, error)
        finally:
            self._answers.discard(answer)
            self.asked[answer.asked.adapter] -= 1
            stream.end()
            answer.tell(end)

    async def _read(self, answer: Requested, stream: Stream) -> AsyncIterator[Piece | End]:
        url, asked, has_stopped = stream.url, answer.asked, False
        async with self._client.stream(
            "POST", url, json=stream.body, headers=self.headers
        ) as reply:
            if reply.is_error:
                await reply.aread()
            _check(reply, url)
            async for line in reply.aiter_lines():
                kind, _, content = line.partition(": ")
                if kind == "error":
                    raise ModelError(f"its engine says: {content[:MOST_ERROR]}", where=url)
                if kind != "data" or content == "[DONE]":
                    continue
                event = json.loads(content)
                if "error" in event:
                    said = str(event["error"])[:MOST_ERROR]
                    raise ModelError(f"its engine says: {said}", where=url)
                for told in stream.read(event):
                    if has_stopped and not isinstance(told, End):
                        told = End("stop")  # the engine does not know that one ends here
                    has_stopped = has_stopped or _is_stop(told, asked)
                    if not _is_stop(told, asked):
                        yield told
        if has_stopped:
            yield End("stop")


def _is_stop(told: Piece | End, asked: Asked) -> bool:
    return isinstance(told, Piece) and told.id in asked.stop_ids


def _check(reply: httpx.Response, url: str) -> None:
    if reply.is_error:
        found = reply.text[:MOST_ERROR]
        raise ModelError(f"its engine answers {reply.status_code}: {found}", where=url)


def _is_json(reply: httpx.Response) -> bool:
    return "json" in reply.headers.get("content-type", "")


def _unreachable(url: str, error: Exception) -> ModelError:
    found = str(error) or type(error).__name__
    return ModelError(f"its engine cannot be asked: {found}", where=url)


def _unlimited() -> httpx.Limits:
    return httpx.Limits(max_connections=None, max_keepalive_connections=64)
