"""Around every request: an id, limits on what comes and how slowly, a line in the log, a count."""

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from luthier.jobs import new_id
from luthier.server.errors import ApiError, bug
from luthier.server.figures import Figures
from luthier.server.settings import Limits

log = logging.getLogger("luthier.server")

ROOM_FOR_FIELDS = 2**20
"""Bytes of a body beside its file: fields and boundaries."""


@dataclass
class _Answer:
    """What was sent so far."""

    status: int = 0
    is_begun: bool = False


class Protection:
    """The outermost layer: nothing that a client does brings down what is within."""

    def __init__(self, app: ASGIApp, *, limits: Limits, figures: Figures) -> None:
        self._app, self._limits, self._figures = app, limits, figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, answer = time.perf_counter(), _Answer()
        request_id = new_id("req_", 32)
        scope.setdefault("state", {})["request_id"] = request_id

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.is_begun = message["status"], True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round(1e3 * (time.perf_counter() - started)))
            await send(message)

        try:
            body = self._body(scope, receive)
            await self._app(scope, body, sending)
        except ApiError as error:
            await error.response()(scope, receive, sending)
        except ClientDisconnect:
            answer.status = 499
        except Exception:
            log.exception("request %s failed", request_id)
            if answer.is_begun:
                raise
            await bug().response()(scope, receive, sending)
        finally:
            self._tell(scope, answer, time.perf_counter() - started)

    def _body(self, scope: Scope, receive: Receive) -> Receive:
        """The body, while it is neither too large nor too slow. Raises ApiError at once for one
        that says it is too large."""
        limit, stall = self._limit(scope["path"]), self._limits.stall
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise _too_large(limit)
        size, started, is_over = 0, time.monotonic(), False

        async def receiving() -> Message:
            nonlocal size, is_over
            if is_over:  # only whether the client is still there is asked now
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), stall)
            except TimeoutError as error:
                raise HTTPException(408, f"No data came for {stall:g} seconds.") from error
            size += len(message.get("body", b""))
            if size > limit:
                raise HTTPException(413, str(_too_large(limit)))
            taken = time.monotonic() - started
            if (
                taken > stall
                and size < taken * self._limits.least_rate
                and message.get("more_body")
            ):
                raise HTTPException(408, "The body comes too slowly.")
            is_over = not message.get("more_body", False)
            return message

        return receiving

    def _limit(self, path: str) -> int:
        if path.endswith("/files"):
            return self._limits.file_bytes + ROOM_FOR_FIELDS
        if path.endswith("/parts"):
            return self._limits.part_bytes + ROOM_FOR_FIELDS
        return self._limits.body_bytes

    def _tell(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        # The pattern of the address, not the address: it may hold what is a client's own.
        within = "/v1" if scope["path"].startswith("/v1/") else ""
        route = getattr(scope.get("route"), "path", "unknown")
        route = route if route == "unknown" else within + route.removeprefix(within)
        self._figures.requests.labels(scope["method"], route, str(answer.status)).inc()
        self._figures.seconds.labels(route).observe(seconds)
        state = scope["state"]
        log.info(
            "request",
            extra={"told": {
                "request": state["request_id"], "key": state.get("key_id", ""),
                "method": scope["method"], "route": route, "status": answer.status,
                "ms": round(1e3 * seconds, 1),
            }},
        )  # fmt: skip


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit:,} bytes.", code="body_too_large")
