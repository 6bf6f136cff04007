"""Who asks, and whether they may: keys, scopes, a limit of requests per minute."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Annotated, Any

from fastapi import Depends, Request

from luthier.jobs import Service
from luthier.jobs.keys import WORD
from luthier.pipeline import Engines, Readers
from luthier.server.errors import ApiError
from luthier.server.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names under which a server without keys answers: so no page of a browser reaches it by a name of
its own (DNS rebinding)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client, by its key."""

    key_id: str
    scopes: frozenset[str]
    request_id: str
    service: Service
    settings: Settings
    engines: Engines | None = None
    readers: Readers | None = None
    address: str = ""
    """Of the server, as the client knows it."""

    def note(self, action: str, subject: str) -> None:
        """Record that it did something that changes something."""
        self.service.keys.note(self.key_id, action, subject, self.request_id)


@dataclass
class Pace:
    """A bucket for each key that fills with time: a limit of requests per minute."""

    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def wait(self, key: str, per_minute: int) -> float:
        """Take one; 0, or the seconds until there is one."""
        with self._lock:
            now = self.clock()
            left, since = self._left.get(key, (float(per_minute), now))
            left = min(float(per_minute), left + (now - since) * per_minute / 60)
            is_there = left >= 1
            self._left[key] = (left - is_there, now)
            return 0.0 if is_there else (1 - left) * 60 / per_minute


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service


def may(scope: str) -> Any:
    """The caller, who must have a scope."""

    def check(request: Request) -> Caller:
        inside: Caller | None = request.scope["state"].get("inside")  # which no client can set
        caller = inside or caller_of(request)
        request.state.key_id = caller.key_id
        if not {scope, "admin"} & caller.scopes:
            message = (
                f"You have insufficient permissions for this operation. Missing scope: {scope}"
            )
            raise ApiError(403, message, code="missing_scope")
        return caller

    return Depends(check)


Reader = Annotated[Caller, may("read")]
Tuner = Annotated[Caller, may("tune")]
Asker = Annotated[Caller, may("infer")]
Admin = Annotated[Caller, may("admin")]


def caller_of(request: Request) -> Caller:
    """Who asks. Raises ApiError where nobody who may."""
    state = request.app.state
    caller = _known(request, state.service, state.settings)
    address = str(request.base_url).rstrip("/")
    return replace(caller, engines=state.engines, readers=state.readers, address=address)


def _known(request: Request, service: Service, settings: Settings) -> Caller:
    request_id = request.state.request_id
    if not settings.needs_key:
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
        if host not in LOOPBACK:
            raise ApiError(403, "Without keys this server answers on this machine only.")
        return Caller("", frozenset({"admin"}), request_id, service, settings)
    word, _, secret = request.headers.get("authorization", "").partition(" ")
    if word.lower() != "bearer" or not secret.strip():
        message = "You didn't provide an API key. Send it as: Authorization: Bearer YOUR_KEY"
        raise ApiError(401, message, code="missing_api_key")
    key = service.keys.find(secret.strip()) if secret.startswith(WORD) else None
    if key is None:
        raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
    limit = key.requests_per_minute or settings.limits.requests_per_minute
    seconds = request.app.state.pace.wait(key.id, limit) if limit else 0.0
    if seconds:
        message = f"Rate limit reached: {limit} requests per minute."
        headers = {"retry-after": str(int(seconds) + 1)}
        raise ApiError(429, message, code="rate_limit_exceeded", headers=headers)
    return Caller(key.id, frozenset(key.scopes["list"]), request_id, service, settings)
