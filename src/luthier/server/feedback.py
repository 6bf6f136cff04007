"""Log to learn: what is asked and answered is kept, if the owner wants it, and what people think.

Personal data is masked before anything is written. `/v1/feedback` is ours.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal, Self

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, model_validator

from luthier.curation import mask
from luthier.errors import StorageError
from luthier.server.access import Asker, Caller
from luthier.server.errors import ApiError, not_found
from luthier.server.wire import Wire

log = logging.getLogger("luthier.server")
router = APIRouter()
PLAIN = ("role", "type", "id", "name", "tool_call_id", "finish_reason")
"""Fields of messages that nobody writes into."""


class Feedback(BaseModel):
    """What somebody thinks of an answer."""

    id: str
    """Of the chat."""
    rating: Literal["up", "down"] | None = None
    correction: str | None = None
    """What should have been answered."""
    comment: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_dump(exclude={"id"}, exclude_none=True):
            raise ValueError("needs a rating, a correction or a comment")
        return self


@router.post("/feedback")
def give_feedback(body: Feedback, caller: Asker) -> Wire:
    """Note what somebody thinks of an answer that was kept."""
    given = body.model_dump(exclude={"id"}, exclude_none=True)
    masked = {key: value if key == "rating" else mask(value) for key, value in given.items()}
    _check_own(caller, body.id)
    caller.service.captures.judge(body.id, masked)
    return {"id": body.id, "object": "feedback", **masked}


@router.delete("/feedback/{answer_id}")
def forget_answer(answer_id: str, caller: Asker) -> Wire:
    """Forget what was asked and answered."""
    _check_own(caller, answer_id)
    caller.service.captures.delete(answer_id)
    return {"id": answer_id, "object": "feedback", "deleted": True}


def _check_own(caller: Caller, answer_id: str) -> None:
    """Raise ApiError unless this answer is kept, and the caller's own."""
    if caller.settings.capture_days is None:
        raise ApiError(400, "This server keeps no answers (serve --capture DAYS).", param="id")
    row = caller.service.captures.find(answer_id)
    if row is None or not (row.key_id == caller.key_id or "admin" in caller.scopes):
        raise not_found("answer", answer_id)


async def capture(caller: Caller, answer_id: str, request: Wire, choices: Sequence[Wire]) -> None:
    """Keep a chat, masked; where it cannot be kept, the answer is given all the same."""
    model = request["model"]

    def keep() -> None:
        asked = {**request, "messages": _masked(request["messages"])}
        answer = {"object": "chat.completion", "model": model, "choices": _masked(list(choices))}
        caller.service.captures.keep(answer_id, model, caller.key_id, asked, answer)

    try:
        await run_in_threadpool(keep)
    except StorageError:
        log.warning("answer %s could not be kept to learn from", answer_id)


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {key: v if key in PLAIN else _masked(v) for key, v in value.items()}
    return [_masked(one) for one in value] if isinstance(value, list) else value
