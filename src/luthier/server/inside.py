"""Requests that the server makes of itself: for graders, runs of evals and batches.

They go the whole way of a client's, in the name of the one who asked, so that they are answered,
limited and refused alike.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio.from_thread
from starlette.types import ASGIApp, Message

from luthier.data import Message as Turn
from luthier.evaluation import Said
from luthier.recipe import SamplingParams
from luthier.server.access import Caller
from luthier.server.wire import Wire

AT_ONCE = 8
"""Requests of one piece of work on their way together."""
BUSY = (429, 503)
"""Statuses after which it is asked again."""
PATIENCE = 1.0
"""Seconds until then."""
LONGEST_GRADE = 2048
"""Tokens that a model which grades may write, where nobody says."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered."""

    status: int
    body: Any
    request_id: str

    @property
    def error(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        if self.status < 400:
            return ""
        return str(self.body.get("error", {}).get("message", f"status {self.status}"))


@dataclass(frozen=True)
class Inside:
    """Asks a server in the name of a caller."""

    app: ASGIApp
    caller: Caller

    async def post(self, path: str, body: Wire) -> Reply:
        """One request, waiting while the server has too many."""
        while True:
            reply = await self._post(path, body)
            if reply.status not in BUSY:
                return reply
            await asyncio.sleep(PATIENCE)

    async def _post(self, path: str, body: Wire) -> Reply:
        content, sent = json.dumps(body).encode(), False
        parts: list[bytes] = []
        told: dict[str, Any] = {}

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # this client never leaves
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: Message) -> None:
            told.update(message)
            parts.append(message.get("body", b""))

        headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
        await self.app(
            {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
                "method": "POST", "scheme": "http", "path": path, "raw_path": path.encode(),
                "query_string": b"", "root_path": "", "headers": headers, "client": None,
                "server": None, "state": {"inside": self.caller},
            },
            receive, send,
        )  # fmt: skip
        found = dict(told["headers"]).get(b"x-request-id", b"").decode()
        return Reply(told["status"], json.loads(b"".join(parts)), found)

    def ask(
        self, model: str, questions: Sequence[Sequence[Turn]], how: SamplingParams
    ) -> list[Said]:
        """Ask one of the server's models many questions, as graders do, from a worker thread."""
        return anyio.from_thread.run(self._ask_all, model, questions, how)

    async def _ask_all(
        self, model: str, questions: Sequence[Sequence[Turn]], how: SamplingParams
    ) -> list[Said]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(turns: Sequence[Turn]) -> Said:
            body = {
                "model": model, "temperature": how.temperature, "top_p": how.top_p,
                "seed": how.seed,
                "max_completion_tokens": how.max_completions_tokens or LONGEST_GRADE,
                "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            }  # fmt: skip
            async with room:
                reply = await self.post("/v1/chat/completions", body)
            if reply.error:
                return Said("", reply.error)
            return Said(reply.body["choices"][0]["message"]["content"] or "")

        return list(await asyncio.gather(*map(one, questions)))
