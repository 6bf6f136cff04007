"""What a server does beside answering: errands row by row, messages to webhooks, forgetting.

Any number of servers share the work of a database; each errand is in one's hands at a time.
"""

import asyncio
import http.client
import json
import logging
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from anyio.to_thread import run_sync
from starlette.types import ASGIApp

from luthier.errors import LuthierError, StorageError
from luthier.jobs import Hold, LostHoldError, Service
from luthier.jobs.hooks import Due, signature
from luthier.jobs.tables import Body, ErrandRow
from luthier.jobs.watching import Watch
from luthier.server.access import Caller
from luthier.server.inside import AT_ONCE, Inside

POLL = 2.0
"""Seconds between two looks for work."""
BEAT = 2.0
LEASE = 30.0
"""Seconds without a beat after which another server's errand is taken up."""
ERRANDS = 2
"""In hand at once."""
PATIENCE = 20.0
"""Seconds that an address may take for a message."""
TIDY = 3600.0
STOPPED = ("cancelling", "canceled")

log = logging.getLogger("luthier.server")


@dataclass(frozen=True)
class Errand:
    """An errand in hand."""

    row: ErrandRow
    hold: Hold
    inside: Inside
    service: Service

    async def do(self, work: Callable[[], Any]) -> Any:
        """Do something that waits, such as for the database, in a thread."""
        return await run_sync(work)

    async def change(self, status: str = "", **changes: Any) -> None:
        """Note how far it is. Raises LostHoldError."""
        await self.do(lambda: self.service.errands.change(self.hold, status, **changes))

    async def each(
        self, count: int, prefix: str, work: Callable[[int], Awaitable[tuple[str, Body]]]
    ) -> None:
        """Do the rows that are not done, several at once, and keep what came of each."""
        errands = self.service.errands
        done = await self.do(lambda: errands.done(self.hold))
        left: Iterable[int] = iter([number for number in range(count) if number not in done])

        async def some() -> None:
            for number in left:
                status, body = await work(number)
                await self.do(
                    lambda: errands.add(self.hold, number, prefix, status, body)  # noqa: B023
                )

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())


Work = Callable[[Errand], Awaitable[None]]


@dataclass
class Clerk:
    """The work of one server."""

    app: ASGIApp
    service: Service
    caller: Caller
    """Itself; an errand is done in the name of who asked for it."""
    works: dict[str, Work]
    """Kind of errand -> how it is done."""
    stops: dict[str, Work]
    """Kind of errand -> what is left to do of one that is being stopped."""
    name: str = ""
    _watch: Watch = field(default_factory=lambda: Watch(LEASE))
    _tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    _telling: "asyncio.Task[None] | None" = None
    _tidied: float = -TIDY

    def __post_init__(self) -> None:
        self.name = self.name or f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid4().hex[:8]}"

    async def run(self) -> None:
        """Work until cancelled; errands in hand are then let go."""
        try:
            while True:
                try:
                    await self._turn()
                except StorageError as error:
                    log.warning("%s", error)
                await asyncio.sleep(POLL)
        finally:
            tasks = [*self._tasks.values(), *([self._telling] if self._telling else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _turn(self) -> None:
        self._tasks = {name: task for name, task in self._tasks.items() if not task.done()}
        rows = await run_sync(self.service.errands.open)
        dead = {row.id for row in self._watch.dead([row for row in rows if row.worker])}
        for row in rows:
            is_free = not row.worker or (row.id in dead and row.worker != self.name)
            if is_free and row.id not in self._tasks and len(self._tasks) < ERRANDS:
                hold = await run_sync(self.service.errands.take, row, self.name)
                if hold is not None:
                    self._tasks[row.id] = asyncio.create_task(self._attend(row, hold))
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())
        days = self.caller.settings.capture_days
        if days is not None and time.monotonic() - self._tidied > TIDY:
            self._tidied = time.monotonic()
            await run_sync(self.service.captures.forget, days)

    async def _tell(self) -> None:
        """Send the messages that are due; a slow address holds up no errand."""

        async def one(due: Due) -> None:
            if await run_sync(_is_taken, due):
                await run_sync(self.service.hooks.sent, due.delivery.id)

        try:
            due = await run_sync(self.service.hooks.due)
            await asyncio.gather(*map(one, due))
        except StorageError as error:
            log.warning("%s", error)

    async def _attend(self, row: ErrandRow, hold: Hold) -> None:
        """Do an errand while it is wanted."""
        caller = Caller(
            row.asked_by, frozenset({"read", "tune", "infer"}), "", self.service,
            self.caller.settings, self.caller.engines, self.caller.readers,
        )  # fmt: skip
        errand = Errand(row, hold, Inside(self.app, caller), self.service)
        is_stopped = row.status in STOPPED
        work = (self.stops if is_stopped else self.works)[row.kind]
        working = asyncio.ensure_future(work(errand))
        beating = asyncio.ensure_future(self._beat(hold, is_stopped=is_stopped))
        try:
            await asyncio.wait((working, beating), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
        except LostHoldError:
            pass  # another one has it, or nobody wants it any more
        except StorageError as error:
            log.warning("%s waits: %s", row.id, error)
        except (LuthierError, ExceptionGroup) as error:
            log.warning("%s failed: %s", row.id, error)
            await self._fail(errand, error)
        finally:
            for task in (working, beating):
                task.cancel()
            await asyncio.gather(working, beating, return_exceptions=True)
            with suppress(StorageError):
                await run_sync(self.service.errands.release, hold)

    async def _beat(self, hold: Hold, *, is_stopped: bool) -> None:
        """Beat until somebody stops the errand."""
        while True:
            await asyncio.sleep(BEAT)
            with suppress(StorageError):
                status = await run_sync(self.service.errands.beat, hold)
                if status in STOPPED and not is_stopped:
                    return

    async def _fail(self, errand: Errand, error: Exception) -> None:
        found: BaseException = error
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if isinstance(found, LostHoldError | StorageError):
            return
        message = str(found) if isinstance(found, LuthierError) else "The server had an error."
        with suppress(LostHoldError, StorageError):
            await errand.change("failed", error={"code": "server_error", "message": message})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        """A message goes where its owner said, and nowhere else."""
        return


def _is_taken(due: Due) -> bool:
    """Send a message; whether its address has taken it."""
    delivery, now = due.delivery, int(time.time())
    content = {"id": delivery.id, "object": "event", "created_at": delivery.created_at,
               "type": delivery.type, "data": {"id": delivery.subject}}  # fmt: skip
    body = json.dumps(content).encode()
    request = urllib.request.Request(  # noqa: S310 - http or https, checked when it was added
        due.url, body,
        {
            "content-type": "application/json", "user-agent": "Luthier",
            "webhook-id": delivery.id, "webhook-timestamp": str(now),
            "webhook-signature": signature(due.secret, delivery.id, now, body),
        },
    )  # fmt: skip
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=PATIENCE) as answer:
            return 200 <= int(answer.status) < 300
    except (OSError, http.client.HTTPException) as error:
        log.warning("webhook %s was not taken by %s: %s", delivery.id, due.url, error)
        return False
