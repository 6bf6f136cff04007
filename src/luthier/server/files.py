"""/v1/files and /v1/uploads: files that come whole, or in parts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from luthier.curation.formats import check_format
from luthier.data import Finding
from luthier.errors import DataError
from luthier.jobs.files import Incoming
from luthier.jobs.tables import FileRow, UploadRow
from luthier.server.access import Caller, Reader, Tuner
from luthier.server.errors import ApiError, not_found
from luthier.server.incoming import Form, read_form
from luthier.server.wire import Wire, file_object, page, part_object, upload_object

PURPOSES = ("fine-tune", "batch", "evals", "user_data", "assistants", "vision")
LONGEST_NAME = 512
SHORTEST_LIFE, LONGEST_LIFE = 3600, 2_592_000
"""Seconds after which a file may expire."""
MOST_TOLD = 20
"""Faults of a file that an answer lists."""
UNREAD = ("wrong-encoding", "broken-json", "not-an-object", "row-too-large")
"""Faults of lines that are not counted as rows."""
BLOCK = 2**20

router = APIRouter()


@router.post("/files")
async def create_file(request: Request, caller: Tuner) -> Wire:
    """Take in a file."""
    service = caller.service
    form = await read_form(request, service.files, "file", caller.settings.limits.file_bytes)
    try:
        purpose = _purpose(form.fields.get("purpose"))
        expires_after = _life(form)
    except BaseException:
        form.discard()
        raise
    assert form.file is not None, "read_form finds one"
    row = await run_in_threadpool(_keep, caller, form.file, form.filename, purpose, expires_after)
    return file_object(row)


def _keep(
    caller: Caller, incoming: Incoming, filename: str, purpose: str, expires_after: int | None
) -> FileRow:
    """Check what has come, and keep it; nothing of it stays where it is refused."""
    try:
        report = _report(incoming, filename) if purpose == "fine-tune" else {}
        row = caller.service.files.add(
            incoming, filename[:LONGEST_NAME], purpose, report=report, expires_after=expires_after
        )
    except BaseException:
        incoming.discard()
        raise
    caller.note("file.create", row.id)
    return row


def _report(incoming: Incoming, filename: str) -> dict[str, Any]:
    """How many rows there are, and what is wrong with some. Raises ApiError where none is right."""
    incoming.file.flush()
    # The ending tells how it is read; what stands before it is a client's word.
    path = incoming.path = incoming.path.rename(incoming.path.with_suffix(".jsonl"))
    found = _Faults(str(path), filename)
    try:
        num_rows = check_format(path, found.take)
    except DataError as error:
        raise _invalid(str(error).replace(str(path), filename)) from error
    if num_rows <= found.num_wrong:
        raise _invalid(found.told[0] if found.told else f"{filename} holds no rows")
    return {"rows": num_rows, "num_faults": found.count, "faults": found.told}


@dataclass
class _Faults:
    """What is wrong with the rows of a file, as clients are told it."""

    path: str
    filename: str
    count: int = 0
    num_wrong: int = 0
    """Rows that were read, and are none."""
    told: list[str] = field(default_factory=list)
    _line: int = 0

    def take(self, finding: Finding) -> None:
        """Findings come line by line."""
        self.count += 1
        is_wrong = finding.severity == "error" and finding.name not in UNREAD
        if is_wrong and finding.place.line != self._line:
            self.num_wrong, self._line = self.num_wrong + 1, finding.place.line
        if len(self.told) < MOST_TOLD:
            self.told.append(str(finding).replace(self.path, self.filename))


def _invalid(message: str) -> ApiError:
    return ApiError(
        400, f"Invalid file format: {message}", param="file", code="invalid_file_format"
    )


def _purpose(given: str | None) -> str:
    if given not in PURPOSES:
        message = (
            f"'{given}' is not one of {', '.join(PURPOSES)}" if given else "'purpose' is missing"
        )
        raise ApiError(400, message, param="purpose", code="invalid_value")
    return given


def _life(form: Form) -> int | None:
    seconds = form.fields.get("expires_after[seconds]")
    if seconds is None:
        return None
    if form.fields.get("expires_after[anchor]") != "created_at" or not seconds.isdecimal():
        raise ApiError(400, "anchor must be created_at, seconds a number", param="expires_after")
    return _checked_life(int(seconds))


def _checked_life(seconds: int) -> int:
    if not SHORTEST_LIFE <= seconds <= LONGEST_LIFE:
        message = f"seconds must lie between {SHORTEST_LIFE} and {LONGEST_LIFE}"
        raise ApiError(400, message, param="expires_after")
    return seconds


@router.get("/files")
def list_files(
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Wire:
    """Files by age."""
    rows, has_more = caller.service.files.list(
        after=after, limit=limit, order=order, purpose=purpose
    )
    return page(rows, file_object, has_more=has_more)


def found_file(caller: Caller, file_id: str) -> FileRow:
    """The file with this id. Raises ApiError."""
    row = caller.service.files.find(file_id)
    if row is None:
        raise not_found("File object", file_id)
    return row


@router.get("/files/{file_id}")
def retrieve_file(file_id: str, caller: Reader) -> Wire:
    """One file."""
    return file_object(found_file(caller, file_id))


@router.delete("/files/{file_id}")
def delete_file(file_id: str, caller: Tuner) -> Wire:
    """Delete a file; jobs under way keep what they need of it."""
    found_file(caller, file_id)
    caller.service.files.delete(file_id)
    caller.note("file.delete", file_id)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/files/{file_id}/content")
def file_content(file_id: str, caller: Reader) -> StreamingResponse:
    """The bytes of a file."""
    row = found_file(caller, file_id)

    def blocks() -> Iterator[bytes]:
        with caller.service.files.open(row) as file:
            while block := file.read(BLOCK):
                yield block

    headers = {"content-length": str(row.bytes), "x-content-type-options": "nosniff"}
    return StreamingResponse(blocks(), media_type="application/octet-stream", headers=headers)


class Expiry(BaseModel):
    """When a file goes."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=SHORTEST_LIFE, le=LONGEST_LIFE)


class NewUpload(BaseModel):
    """What is going to come."""

    bytes: int = Field(ge=0)
    filename: str = Field(max_length=LONGEST_NAME)
    mime_type: str = Field(max_length=LONGEST_NAME)
    purpose: str
    expires_after: Expiry | None = None


class Completion(BaseModel):
    """The order of the parts."""

    part_ids: list[str] = Field(max_length=10_000)
    md5: str | None = None


@router.post("/uploads")
def create_upload(body: NewUpload, caller: Tuner) -> Wire:
    """Begin a file that comes in parts."""
    limit = caller.settings.limits.upload_bytes
    if body.bytes > limit:
        raise ApiError(400, f"A file may have {limit:,} bytes.", param="bytes")
    row = caller.service.uploads.create(
        body.filename, _purpose(body.purpose), body.bytes, body.mime_type,
        body.expires_after.seconds if body.expires_after else None,
    )  # fmt: skip
    caller.note("upload.create", row.id)
    return upload_object(row)


def _upload(caller: Caller, upload_id: str) -> UploadRow:
    row = caller.service.uploads.find(upload_id)
    if row is None:
        raise not_found("upload", upload_id)
    return row


@router.post("/uploads/{upload_id}/parts")
async def add_part(upload_id: str, request: Request, caller: Tuner) -> Wire:
    """Take in a part."""
    service = caller.service
    upload = await run_in_threadpool(_upload, caller, upload_id)
    form = await read_form(request, service.files, "data", caller.settings.limits.part_bytes)
    assert form.file is not None, "read_form finds one"
    try:
        return part_object(await run_in_threadpool(service.uploads.add_part, upload, form.file))
    except BaseException:
        form.discard()
        raise


@router.post("/uploads/{upload_id}/complete")
def complete_upload(upload_id: str, body: Completion, caller: Tuner) -> Wire:
    """Join the parts; what comes of them is checked like any file."""
    upload = _upload(caller, upload_id)
    uploads = caller.service.uploads
    incoming = uploads.join(upload, body.part_ids, body.md5)
    file = _keep(caller, incoming, upload.filename, upload.purpose, upload.file_expires_after)
    return upload_object(uploads.end(upload, "completed", file.id), file)


@router.post("/uploads/{upload_id}/cancel")
def cancel_upload(upload_id: str, caller: Tuner) -> Wire:
    """Forget the parts."""
    upload = caller.service.uploads.end(_upload(caller, upload_id), "cancelled")
    caller.note("upload.cancel", upload_id)
    return upload_object(upload)
