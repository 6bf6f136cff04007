"""A request for a fine-tuning job, checked, as a row of the queue."""

import hashlib
import json
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from luthier.errors import ConfigError
from luthier.jobs.orders import (
    HYPERPARAMETERS,
    MADE,
    MULTIPLIER,
    TASKS,
    check_settings,
    order_of,
)
from luthier.jobs.tables import JobRow
from luthier.server.access import Caller
from luthier.server.errors import ApiError, no_model
from luthier.server.metadata import Metadata

AUTO = ("n_epochs", "batch_size", MULTIPLIER)

Auto = Literal["auto"]
Epochs = Annotated[int, Field(ge=1, le=50)]
Rows = Annotated[int, Field(ge=1, le=256)]
Multiplier = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Beta = Annotated[float, Field(gt=0, le=2)]


class Hyperparameters(BaseModel):
    """The protocol's, and ours beside them; unknown ones are ignored."""

    model_config = ConfigDict(extra="allow")
    n_epochs: Auto | Epochs = "auto"
    batch_size: Auto | Rows = "auto"
    learning_rate_multiplier: Auto | Multiplier = "auto"
    beta: Auto | Beta | None = None


class OfMethod(BaseModel):
    """What a method is given."""

    hyperparameters: Hyperparameters | None = None


class Method(BaseModel):
    """How to tune."""

    type: Literal["supervised", "dpo", "reinforcement"] = "supervised"
    supervised: OfMethod | None = None
    dpo: OfMethod | None = None


class Wandb(BaseModel):
    """Where to tell it in Weights & Biases."""

    project: str
    name: str | None = None
    entity: str | None = None
    tags: list[str] = []


class Integration(BaseModel):
    """Where else to tell what happens."""

    type: Literal["wandb"]
    wandb: Wandb


class JobRequest(BaseModel):
    """The body of a new job; what is ours stands beside the protocol's fields."""

    model_config = ConfigDict(extra="allow")
    model: str
    training_file: str
    validation_file: str | None = None
    suffix: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    integrations: Annotated[list[Integration], Field(max_length=5)] | None = None
    metadata: Metadata | None = None
    task: Literal["classification", "embedding"] | None = None
    """Ours: what the model is to become instead of one that writes."""
    recipe: dict[str, dict[str, Any]] = {}
    """Ours: sections of a recipe, as far as a request may set them."""


def job_of(request: JobRequest, caller: Caller) -> JobRow:
    """The row of a new job. Raises ApiError where it cannot be one."""
    method = request.method or Method()
    if method.type == "reinforcement":
        message = "Reinforcement fine-tuning is not offered here; choose supervised or dpo."
        raise ApiError(400, message, param="method.type", code="unsupported_method")
    model, source = _start(request, caller)
    _check_file(caller, request.training_file, "training_file")
    if request.validation_file:
        _check_file(caller, request.validation_file, "validation_file")
    job = JobRow(
        status="validating_files", model=model, source=source,
        training_file=request.training_file, validation_file=request.validation_file,
        suffix=request.suffix,
        seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
        method={"type": method.type}, hyperparameters=_hyperparameters(request, method),
        meta=request.metadata or {}, settings=_settings(request),
        integrations={"list": [i.model_dump() for i in request.integrations or []]},
        error=None, fine_tuned_model=None, trained_tokens=None, result_files={"list": []},
        evaluation={}, estimated_finish=None, finished_at=None,
        request_hash=_hash(request), asked_by=caller.key_id,
    )  # fmt: skip
    _check_order(job)
    return job


def _start(request: JobRequest, caller: Caller) -> tuple[str, str]:
    """Name and source of the model that a job starts from. Raises ApiError."""
    base = caller.settings.base(request.model)
    if base is not None:
        return base.name, base.source
    row = caller.service.models.find(request.model)
    if row is None:
        raise no_model(request.model)
    if "/asked/" in row.place:
        message = "A job starts from a base or a finished model, not from a checkpoint."
        raise ApiError(400, message, param="model")
    if row.kind != "write" or request.task:
        message = "Only models that write go on, and only in writing."
        raise ApiError(400, message, param="model")
    return row.id, f"{MADE}{row.place}"


def _check_file(caller: Caller, file_id: str, param: str) -> None:
    file = caller.service.files.find(file_id)
    if file is None:
        raise ApiError(400, f"invalid {param}: {file_id}", param=param, code="invalid_value")
    if file.purpose != "fine-tune":
        message = f"{file_id} has purpose {file.purpose}; upload it with purpose fine-tune"
        raise ApiError(400, message, param=param, code="invalid_file_purpose")


def _hyperparameters(request: JobRequest, method: Method) -> dict[str, Any]:
    """What was asked by the body, the deprecated field, the method; the last of these counts."""
    of_method = getattr(method, method.type)
    asked: dict[str, Any] = {
        name: value
        for name, value in (request.model_extra or {}).items()
        if name in HYPERPARAMETERS
    }
    for part in (request.hyperparameters, of_method.hyperparameters if of_method else None):
        asked |= part.model_dump(exclude_none=True, exclude_unset=True) if part else {}
    known = {*HYPERPARAMETERS, MULTIPLIER}
    return dict.fromkeys(AUTO, "auto") | {n: v for n, v in asked.items() if n in known}


def _settings(request: JobRequest) -> dict[str, Any]:
    try:
        check_settings(request.recipe)
    except ConfigError as error:
        raise ApiError(400, str(error), param="recipe", code="invalid_value") from error
    found: dict[str, Any] = {"recipe": request.recipe} if request.recipe else {}
    if request.task:
        found["method"] = TASKS[request.task]
    return found


def _check_order(job: JobRow) -> None:
    """Whether a recipe comes of it, before anything waits for it. Raises ApiError."""
    draft = JobRow(id="draft", **{name: getattr(job, name) for name in (
        "hyperparameters", "settings", "method", "seed", "source")})  # fmt: skip
    try:
        order_of(draft, {"train": Path("training_file.jsonl")}, Path("workspace"))
    except ConfigError as error:
        raise ApiError(400, str(error), param="hyperparameters", code="invalid_value") from error


def _hash(request: JobRequest) -> str:
    content = json.dumps(request.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
