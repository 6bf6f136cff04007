"""Rows of the database as objects of OpenAI's protocol; what is ours beyond it is in `luthier`."""

from collections.abc import Callable, Sequence
from typing import Any

from luthier.jobs.tables import (
    CheckpointRow,
    ErrandRow,
    EvalRow,
    EventRow,
    FileRow,
    ItemRow,
    JobRow,
    ModelRow,
    PartRow,
    PermissionRow,
    UploadRow,
)

Wire = dict[str, Any]
ORGANIZATION = "org-local"
BATCH_WINDOW = 24 * 3600
"""Seconds after which what is not answered of a batch never is."""


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


def batch_object(row: ErrandRow) -> Wire:
    """A Batch."""
    states = (
        "in_progress",
        "finalizing",
        "completed",
        "failed",
        "expired",
        "cancelling",
        "cancelled",
    )
    return {
        "id": row.id, "object": "batch", "endpoint": row.request["endpoint"],
        "errors": row.outcome.get("errors"), "input_file_id": row.request["input_file_id"],
        "completion_window": row.request["completion_window"], "status": row.status,
        "output_file_id": row.outcome.get("output_file_id"),
        "error_file_id": row.outcome.get("error_file_id"), "created_at": row.created_at,
        "expires_at": row.created_at + BATCH_WINDOW,
        **{f"{state}_at": row.times.get(state) for state in states},
        "request_counts": row.outcome.get("counts", {"total": 0, "completed": 0, "failed": 0}),
        "metadata": row.meta or None,
    }  # fmt: skip


def eval_object(row: EvalRow) -> Wire:
    """An Eval."""
    config = row.config["data_source_config"]
    schema: Wire = {"type": "object", "properties": {"item": config["item_schema"]},
                    "required": ["item"]}  # fmt: skip
    if config["include_sample_schema"]:
        schema["properties"]["sample"] = {"type": "object"}
        schema["required"].append("sample")
    return {
        "id": row.id, "object": "eval", "created_at": row.created_at, "name": row.name,
        "data_source_config": {"type": "custom", "schema": schema},
        "testing_criteria": row.config["testing_criteria"], "metadata": row.meta,
    }  # fmt: skip


def eval_run_object(row: ErrandRow, address: str) -> Wire:
    """An EvalRun; intervals and what it is compared to are ours."""
    outcome, counts = row.outcome, row.outcome.get("counts", {})
    passed, failed, errored = (counts.get(state, 0) for state in ("pass", "fail", "error"))
    pages = f"{address}/reports/{row.id}/{outcome['page']}" if "page" in outcome else ""
    return {
        "id": row.id, "object": "eval.run", "eval_id": row.eval_id, "created_at": row.created_at,
        "name": row.request["name"], "status": row.status, "error": row.error,
        "model": row.request["data_source"].get("model", ""),
        "data_source": row.request["data_source"], "metadata": row.meta, "report_url": pages,
        "result_counts": {"total": passed + failed + errored, "passed": passed,
                          "failed": failed, "errored": errored},
        "per_testing_criteria_results": outcome.get("per_testing_criteria_results", []),
        "per_model_usage": outcome.get("per_model_usage", []),
        "confidence_interval": outcome.get("confidence_interval"),
        "compared_to": outcome.get("compared_to"),
    }  # fmt: skip


def output_item_object(row: ItemRow, run: ErrandRow) -> Wire:
    """What came of a row of an eval's run."""
    return {
        "id": row.id, "object": "eval.run.output_item", "created_at": row.created_at,
        "run_id": run.id, "eval_id": run.eval_id, "status": row.status,
        "datasource_item_id": row.number, "datasource_item": row.body["item"],
        "results": row.body["results"], "sample": row.body["sample"],
    }  # fmt: skip


def page(rows: Sequence[Any], wire: Callable[[Any], Wire], *, has_more: bool) -> Wire:
    """A cursor page: the client goes on behind the last id."""
    data = [wire(row) for row in rows]
    return {
        "object": "list", "data": data, "has_more": has_more,
        "first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None,
    }  # fmt: skip
