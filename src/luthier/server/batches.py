"""/v1/batches: many requests in a file, answered one after the other, into another file."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from luthier.errors import StorageError
from luthier.jobs.tables import Body, ErrandRow
from luthier.server.access import Asker, Caller, Reader
from luthier.server.clerk import Errand
from luthier.server.errors import ApiError, not_found
from luthier.server.files import found_file
from luthier.server.metadata import Metadata
from luthier.server.wire import BATCH_WINDOW, Wire, batch_object, page

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
MOST_REQUESTS = 50_000
MOST_TOLD = 100
PAGE = 500

router = APIRouter(prefix="/batches")


class BatchRequest(BaseModel):
    """A file of requests."""

    completion_window: Literal["24h"]
    endpoint: Endpoint
    input_file_id: str
    metadata: Metadata | None = None


@router.post("")
def create_batch(body: BatchRequest, caller: Asker) -> Wire:
    """Begin to answer a file of requests."""
    file = found_file(caller, body.input_file_id)
    if file.purpose != "batch":
        message = f"{file.id} has purpose {file.purpose}; upload it with purpose batch"
        raise ApiError(400, message, param="input_file_id", code="invalid_file_purpose")
    row = caller.service.errands.create(
        ErrandRow(
            kind="batch", status="validating", eval_id=None, outcome={}, error=None,
            request=body.model_dump(exclude={"metadata"}), meta=body.metadata or {},
            asked_by=caller.key_id,
        ),
        "batch_",
    )  # fmt: skip
    caller.note("batch.create", row.id)
    return batch_object(row)


def _found(caller: Caller, batch_id: str) -> ErrandRow:
    row = caller.service.errands.find("batch", batch_id)
    if row is None:
        raise not_found("batch", batch_id)
    return row


@router.get("/{batch_id}")
def retrieve_batch(batch_id: str, caller: Reader) -> Wire:
    """One batch; while it is under way, how far it is."""
    row = _found(caller, batch_id)
    if row.status == "in_progress":
        counts = caller.service.errands.counts(batch_id)
        row.outcome = {**row.outcome, "counts": _counts(row.outcome["counts"]["total"], counts)}
    return batch_object(row)


@router.get("")
def list_batches(
    caller: Reader, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> Wire:
    """Batches, newest first."""
    rows, has_more = caller.service.errands.list("batch", after=after, limit=limit)
    return page(rows, batch_object, has_more=has_more)


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: str, caller: Asker) -> Wire:
    """Stop a batch; what is answered is kept."""
    _found(caller, batch_id)
    row = caller.service.errands.stop(batch_id, "cancelling")
    caller.note("batch.cancel", batch_id)
    return batch_object(row)


# What comes of them


async def work_batch(errand: Errand) -> None:
    """Answer all requests of a batch."""
    row = errand.row
    try:
        lines = await errand.do(lambda: list(_lines(errand)))
    except StorageError as error:
        if errand.service.files.find(row.request["input_file_id"]) is not None:
            raise
        await _refuse(errand, [{"code": "missing_file", "message": str(error)}])
        return
    requests, faults = _requests(lines, row.request["endpoint"])
    if faults:
        await _refuse(errand, faults)
        return
    total = {"counts": _counts(len(requests), {})}
    await errand.change("in_progress" if row.status == "validating" else "", outcome=total)

    async def answer(number: int) -> tuple[str, Body]:
        asked = requests[number]
        if errand.service.errands.now() > row.created_at + BATCH_WINDOW:
            told = {"code": "batch_expired", "message": "The batch's time was over."}
            return "fail", {"custom_id": asked["custom_id"], "response": None, "error": told}
        reply = await errand.inside.post(asked["url"], {**asked["body"], "stream": False})
        response = {"status_code": reply.status, "request_id": reply.request_id,
                    "body": reply.body}  # fmt: skip
        return "fail" if reply.error else "pass", {
            "custom_id": asked["custom_id"], "response": response, "error": None,
        }  # fmt: skip

    await errand.each(len(requests), "batch_req_", answer)
    is_late = errand.service.errands.now() > row.created_at + BATCH_WINDOW
    await _conclude(errand, len(requests), "expired" if is_late else "completed")


async def stop_batch(errand: Errand) -> None:
    """Keep what a cancelled batch has answered."""
    total = errand.row.outcome.get("counts", {}).get("total", 0)
    await _conclude(errand, total, "cancelled")


def _lines(errand: Errand) -> Iterator[bytes]:
    file = errand.service.files.local(errand.row.request["input_file_id"])
    with file.open("rb") as lines:
        yield from lines


def _requests(lines: list[bytes], endpoint: str) -> tuple[list[Wire], list[Wire]]:
    """The requests of a file, and what is wrong with its lines."""
    found: list[Wire] = []
    faults: list[Wire] = []
    names: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fault, request = _request(line, endpoint)
        name = request.get("custom_id")
        if not fault and name in names:
            fault = ("duplicate_custom_id", "custom_id", f"{name!r} stands twice")
        if fault and len(faults) < MOST_TOLD:
            code, param, message = fault
            faults.append({"code": code, "line": number, "message": message, "param": param})
        names.add(str(name))
        found.append(request)
    if not found:
        faults.append({"code": "empty_file", "line": None, "message": "holds no requests",
                       "param": "input_file_id"})  # fmt: skip
    if len(found) > MOST_REQUESTS:
        message = f"holds {len(found):,} requests, {MOST_REQUESTS:,} at most"
        faults.append({"code": "too_many_requests", "line": None, "message": message,
                       "param": "input_file_id"})  # fmt: skip
    return found, faults


def _request(line: bytes, endpoint: str) -> tuple[tuple[str, str, str] | None, Wire]:
    """What is wrong with a line, as code, field and words; and the request it holds."""
    value: Any = None
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
    if not isinstance(value, dict):
        return ("invalid_json_line", "", "is no JSON object"), {}
    name = value.get("custom_id")
    if not isinstance(name, str) or not name:
        return ("missing_required_parameter", "custom_id", "needs a custom_id"), value
    if value.get("method") != "POST":
        return ("invalid_method", "method", "must be POST"), value
    if value.get("url") != endpoint:
        return ("mismatched_endpoint", "url", f"must be {endpoint}, as the batch says"), value
    if not isinstance(value.get("body"), dict):
        return ("missing_required_parameter", "body", "needs a body"), value
    return None, value


async def _refuse(errand: Errand, faults: list[Wire]) -> None:
    outcome = {"errors": {"object": "list", "data": faults}}
    await errand.change("failed", outcome=outcome)


async def _conclude(errand: Errand, total: int, status: str) -> None:
    """Write the files, and end."""
    if errand.row.status != "cancelling":
        await errand.change("finalizing")
    outcome: Wire = {"counts": _counts(total, await errand.do(lambda: _counted(errand)))}
    for kind, name in (("pass", "output"), ("fail", "error")):
        text = await errand.do(lambda: "".join(_told(errand, kind)))  # noqa: B023
        if text:
            filename = f"{errand.row.id}_{name}.jsonl"
            row = await errand.do(
                lambda: errand.service.files.add_text(text, filename, "batch_output")  # noqa: B023
            )
            outcome[f"{name}_file_id"] = row.id
    await errand.change(status, outcome=outcome)


def _counted(errand: Errand) -> dict[str, int]:
    return errand.service.errands.counts(errand.row.id)


def _told(errand: Errand, status: str) -> Iterator[str]:
    """Lines of a result file."""
    after, has_more = None, True
    while has_more:
        items, has_more = errand.service.errands.items(
            errand.row.id, after=after, limit=PAGE, status=status
        )
        for item in items:
            yield json.dumps({"id": item.id, **item.body}, ensure_ascii=False) + "\n"
            after = item.id


def _counts(total: int, found: dict[str, int]) -> Wire:
    return {"total": total, "completed": found.get("pass", 0), "failed": found.get("fail", 0)}
