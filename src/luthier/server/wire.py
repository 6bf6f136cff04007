"""Rows of the database as objects of OpenAI's protocol; what is ours beyond it is in `luthier`."""

from collections.abc import Callable, Sequence
from typing import Any

from luthier.jobs.tables import (
    CheckpointRow,
    EventRow,
    FileRow,
    JobRow,
    ModelRow,
    PartRow,
    PermissionRow,
    UploadRow,
)

Wire = dict[str, Any]
ORGANIZATION = "org-local"


def file_object(row: FileRow) -> Wire:
    """A FileObject."""
    found: Wire = {
        "id": row.id, "object": "file", "bytes": row.bytes, "created_at": row.created_at,
        "filename": row.filename, "purpose": row.purpose, "status": row.status,
        "status_details": row.status_details, "expires_at": row.expires_at,
    }  # fmt: skip
    return found | ({"luthier": row.report} if row.report else {})


def upload_object(row: UploadRow, file: FileRow | None = None) -> Wire:
    """An Upload, with its file once there is one."""
    return {
        "id": row.id, "object": "upload", "bytes": row.bytes, "created_at": row.created_at,
        "expires_at": row.expires_at, "filename": row.filename, "purpose": row.purpose,
        "status": row.status, "file": file_object(file) if file else None,
    }  # fmt: skip


def part_object(row: PartRow) -> Wire:
    """An UploadPart."""
    return {
        "id": row.id, "object": "upload.part", "created_at": row.created_at,
        "upload_id": row.upload_id,
    }  # fmt: skip


def permission_object(row: PermissionRow) -> Wire:
    """A checkpoint's permission."""
    return {
        "id": row.id, "object": "checkpoint.permission", "created_at": row.created_at,
        "project_id": row.project_id,
    }  # fmt: skip


def job_object(row: JobRow) -> Wire:
    """A FineTuningJob."""
    known = ("n_epochs", "batch_size", "learning_rate_multiplier")
    kind = row.method["type"]
    given = {"auto": "auto"} | row.hyperparameters
    hyperparameters = {name: given.get(name, "auto") for name in known}
    more = {name: value for name, value in row.hyperparameters.items() if name not in known}
    return {
        "id": row.id, "object": "fine_tuning.job", "created_at": row.created_at,
        "error": row.error, "fine_tuned_model": row.fine_tuned_model,
        "finished_at": row.finished_at, "hyperparameters": hyperparameters,
        "model": row.model, "organization_id": ORGANIZATION,
        "result_files": row.result_files["list"], "status": row.status,
        "trained_tokens": row.trained_tokens, "training_file": row.training_file,
        "validation_file": row.validation_file, "seed": row.seed,
        "estimated_finish": row.estimated_finish, "integrations": row.integrations["list"],
        "metadata": row.meta or None, "user_provided_suffix": row.suffix,
        "method": {"type": kind, kind: {"hyperparameters": hyperparameters | more}},
        "luthier": {"run": row.run_id, "evaluation": row.evaluation, "settings": row.settings},
    }  # fmt: skip


def event_object(row: EventRow) -> Wire:
    """A FineTuningJobEvent."""
    return {
        "id": row.id, "object": "fine_tuning.job.event", "created_at": row.created_at,
        "level": row.level, "message": row.message, "type": row.type, "data": row.data,
    }  # fmt: skip


def checkpoint_object(row: CheckpointRow) -> Wire:
    """A FineTuningJobCheckpoint."""
    return {
        "id": row.id, "object": "fine_tuning.job.checkpoint", "created_at": row.created_at,
        "fine_tuned_model_checkpoint": row.model, "fine_tuning_job_id": row.job_id,
        "step_number": row.step, "metrics": row.metrics,
    }  # fmt: skip


def model_object(row: ModelRow) -> Wire:
    """A Model that a job has made."""
    return {
        "id": row.id, "object": "model", "created": row.created_at, "owned_by": ORGANIZATION,
        "parent": row.parent, "root": row.parent, "job_id": row.job_id, "kind": row.kind,
        "shutdown_date": None,
    }  # fmt: skip


def base_object(name: str) -> Wire:
    """A Model to start from."""
    return {
        "id": name, "object": "model", "created": 0, "owned_by": ORGANIZATION, "parent": None,
        "root": name, "job_id": None, "kind": "base", "shutdown_date": None,
    }  # fmt: skip


def page(rows: Sequence[Any], wire: Callable[[Any], Wire], *, has_more: bool) -> Wire:
    """A cursor page: the client goes on behind the last id."""
    data = [wire(row) for row in rows]
    return {
        "object": "list", "data": data, "has_more": has_more,
        "first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None,
    }  # fmt: skip
