"""/v1/fine_tuning: jobs, their events and checkpoints, and who may use these."""

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from luthier.jobs.tables import JobRow
from luthier.server.access import Admin, Caller, Reader, Tuner
from luthier.server.errors import ApiError, not_found
from luthier.server.orders import JobRequest, job_of
from luthier.server.wire import (
    Wire,
    checkpoint_object,
    event_object,
    job_object,
    page,
    permission_object,
)

TRIED = "x-stainless-retry-count"
"""Header in which OpenAI's clients say how often they have tried before."""
METADATA = re.compile(r"metadata\[(.{1,64})\]")

Limit = Annotated[int, Query(ge=1, le=100)]

router = APIRouter(prefix="/fine_tuning")


@router.post("/jobs")
def create_job(body: JobRequest, request: Request, caller: Tuner) -> Wire:
    """Make a job, or find the one that an earlier try of the same request has made."""
    tried = request.headers.get(TRIED, "0")
    job = job_of(body, caller)
    found = caller.service.jobs.create(job, is_repeated=tried.isdecimal() and int(tried) > 0)
    caller.note("job.create", found.id)
    return job_object(found)


@router.get("/jobs")
def list_jobs(
    request: Request, caller: Reader, after: str | None = None, limit: Limit = 20
) -> Wire:
    """Jobs, newest first."""
    rows, has_more = caller.service.jobs.list(after, limit, _wanted(request))
    return page(rows, job_object, has_more=has_more)


def _wanted(request: Request) -> dict[str, str] | None:
    """Pairs of metadata that a job must have; an empty one where it must have none."""
    if request.query_params.get("metadata") == "null":
        return {}
    pairs = {
        match[1]: value
        for name, value in request.query_params.items()
        if (match := METADATA.fullmatch(name))
    }
    return pairs or None


def _found(caller: Caller, job_id: str) -> JobRow:
    job = caller.service.jobs.find(job_id)
    if job is None:
        raise ApiError(
            404, f"Could not find fine tune: {job_id}", param="fine_tuning_job_id",
            code="fine_tune_not_found",
        )  # fmt: skip
    return job


@router.get("/jobs/{job_id}")
def retrieve_job(job_id: str, caller: Reader) -> Wire:
    """One job."""
    return job_object(_found(caller, job_id))


@router.get("/jobs/{job_id}/events")
def list_events(job_id: str, caller: Reader, after: str | None = None, limit: Limit = 20) -> Wire:
    """What happened to a job, newest first."""
    _found(caller, job_id)
    rows, has_more = caller.service.jobs.events(job_id, after, limit)
    return page(rows, event_object, has_more=has_more)


@router.get("/jobs/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, caller: Reader, after: str | None = None, limit: Limit = 10
) -> Wire:
    """States of a job's model that can be asked, newest first."""
    _found(caller, job_id)
    rows, has_more = caller.service.jobs.checkpoints(job_id, after, limit)
    return page(rows, checkpoint_object, has_more=has_more)


def _move(caller: Caller, job_id: str, status: str, message: str) -> Wire:
    jobs = caller.service.jobs
    over = {"finished_at": jobs.now(), "estimated_finish": None} if status == "cancelled" else {}
    job = jobs.move(job_id, status, message, **over)
    if job is None:
        _found(caller, job_id)
        raise AssertionError("a job is never removed")
    caller.note(f"job.{status}", job_id)
    return job_object(job)


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: str, caller: Tuner) -> Wire:
    """Give a job up; its last checkpoint stays."""
    return _move(caller, job_id, "cancelled", "Fine-tuning job cancelled")


@router.post("/jobs/{job_id}/pause")
def pause_job(job_id: str, caller: Tuner) -> Wire:
    """Let a job rest; it keeps what it has."""
    return _move(caller, job_id, "paused", "Fine-tuning job paused")


@router.post("/jobs/{job_id}/resume")
def resume_job(job_id: str, caller: Tuner) -> Wire:
    """Let a job go on."""
    return _move(caller, job_id, "queued", "Fine-tuning job resumed")


class Projects(BaseModel):
    """Who is to be allowed."""

    project_ids: list[str]


@router.post("/checkpoints/{checkpoint:path}/permissions")
def create_permissions(checkpoint: str, body: Projects, caller: Admin) -> Wire:
    """Let projects use a checkpoint."""
    _check_checkpoint(caller, checkpoint)
    rows = caller.service.models.permit(checkpoint, body.project_ids)
    caller.note("permission.create", checkpoint)
    return page(rows, permission_object, has_more=False)


@router.get("/checkpoints/{checkpoint:path}/permissions")
def list_permissions(
    checkpoint: str,
    caller: Admin,
    after: str | None = None,
    limit: Limit = 10,
    order: Literal["ascending", "descending"] = "descending",
    project_id: str | None = None,
) -> Wire:
    """Who may use a checkpoint."""
    _check_checkpoint(caller, checkpoint)
    rows, has_more = caller.service.models.permissions(
        checkpoint, after=after, limit=limit, order=order, project=project_id
    )
    return page(rows, permission_object, has_more=has_more)


@router.delete("/checkpoints/{checkpoint:path}/permissions/{permission_id}")
def delete_permission(checkpoint: str, permission_id: str, caller: Admin) -> Wire:
    """Take a permission back."""
    _check_checkpoint(caller, checkpoint)
    if not caller.service.models.forbid(checkpoint, permission_id):
        raise not_found("permission", permission_id)
    caller.note("permission.delete", permission_id)
    return {"id": permission_id, "object": "checkpoint.permission", "deleted": True}


def _check_checkpoint(caller: Caller, name: str) -> None:
    if caller.service.models.find(name) is None:
        raise not_found("checkpoint", name, param="fine_tuned_model_checkpoint")
