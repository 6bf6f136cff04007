"""/v1/fine_tuning/alpha/graders: a grader checked, and tried on one answer."""

import json
import time
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Discriminator

from luthier.errors import ConfigError
from luthier.evaluation import Grade, Means, calculated, check_multi, grade
from luthier.pipeline.readers import Texts
from luthier.recipe import (
    LabelModel,
    Multi,
    PythonGrader,
    ScoreModel,
    StringCheck,
    TextSimilarity,
)
from luthier.server.access import Caller, Tuner
from luthier.server.answering import source_of
from luthier.server.errors import ApiError, no_model
from luthier.server.inside import Inside
from luthier.server.wire import Wire

AnyGrader = Annotated[
    StringCheck | TextSimilarity | PythonGrader | ScoreModel | LabelModel | Multi,
    Discriminator("type"),
]
"""Those that a request may name: not a function of the server's own, not a run of its owner's."""
OURS = ("function", "classifier")
FAULTS = {
    "formula": "formula_parse_error",
    "variable": "invalid_variable_error",
    "reply": "model_grader_parse_error",
    "server": "model_grader_server_error",
    "program": "python_grader_runtime_error",
    "other": "other_error",
}
"""Whose fault it is that there is no score -> what the protocol calls it."""
ERRORS = (
    *FAULTS.values(), "model_grader_refusal_error", "python_grader_server_error",
    "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
)  # fmt: skip

router = APIRouter(prefix="/fine_tuning/alpha/graders")


class GraderRequest(BaseModel):
    """A grader."""

    grader: AnyGrader


class RunRequest(GraderRequest):
    """A grader, an answer, and the row it answers."""

    model_sample: str
    item: dict[str, Any] = {}


def check_grader(grader: AnyGrader, caller: Caller) -> None:
    """Raise ApiError for a grader that can never work here."""
    parts = tuple(grader.graders.values()) if isinstance(grader, Multi) else (grader,)
    try:
        if isinstance(grader, Multi):
            check_multi(grader)
    except ConfigError as error:
        raise ApiError(400, str(error), param="grader.calculate_output") from error
    for part in parts:
        if part.type in OURS:
            message = f"A grader of type {part.type} is for recipes, not for requests."
            raise ApiError(400, message, param="grader.graders")
        if isinstance(part, ScoreModel | LabelModel) and not _is_known(part.model, caller):
            raise no_model(part.model)
        is_cosine = isinstance(part, TextSimilarity) and part.evaluation_metric == "cosine"
        if is_cosine and caller.settings.embedder is None:
            message = "This server has no model for likeness by vectors (serve --embedder NAME)."
            raise ApiError(400, message, param="grader.evaluation_metric")


def _is_known(name: str, caller: Caller) -> bool:
    return caller.settings.base(name) is not None or caller.service.models.find(name) is not None


def means_of(inside: Inside) -> Means:
    """What graders need: the server's own models."""

    def embed(texts: Any) -> Any:
        return _embedder(inside.caller).embed(list(texts), as_passages=False)

    return Means(ask=inside.ask, embed=embed)


def _embedder(caller: Caller) -> Texts:
    assert caller.settings.embedder is not None, "checked before"
    if caller.readers is None:
        raise no_model(caller.settings.embedder)
    return caller.readers.open(source_of(caller, caller.settings.embedder)[0])


@router.post("/validate")
def validate_grader(body: GraderRequest, caller: Tuner) -> Wire:
    """The grader as it is understood."""
    check_grader(body.grader, caller)
    return {"grader": body.grader.model_dump(mode="json", exclude_none=True)}


@router.post("/run")
async def run_grader(body: RunRequest, request: Request, caller: Tuner) -> Wire:
    """The reward of an answer."""
    await run_in_threadpool(check_grader, body.grader, caller)
    sample: dict[str, Any] = {"output_text": body.model_sample, "output_tools": []}
    with suppress(ValueError, RecursionError):
        sample["output_json"] = json.loads(body.model_sample)
    rows = [{"sample": sample, "item": body.item}]
    means, started = means_of(Inside(request.app, caller)), time.perf_counter()
    own: dict[str, Grade] = {}
    if isinstance(body.grader, Multi):
        for name, part in body.grader.graders.items():
            (own[name],) = await run_in_threadpool(grade, part, rows, means)
        total = calculated(body.grader, own)
    else:
        (total,) = await run_in_threadpool(grade, body.grader, rows, means)
    return {
        "reward": total.score or 0.0,
        "sub_rewards": {name: one.score for name, one in own.items()},
        "metadata": {
            "name": body.grader.name, "type": body.grader.type,
            "scores": {name: one.score for name, one in own.items()}
            or {body.grader.name: total.score},
            "execution_time": time.perf_counter() - started, "token_usage": None,
            "sampled_model_name": None, "errors": _errors(total),
        },
        "model_grader_token_usage_per_model": {},
    }  # fmt: skip


def _errors(total: Grade) -> Wire:
    found: Wire = dict.fromkeys(ERRORS, False)
    found |= {"model_grader_server_error_details": None, "python_grader_server_error_type": None,
              "python_grader_runtime_error_details": None}  # fmt: skip
    if total.fault:
        name = FAULTS[total.fault]
        found[name] = True
        if f"{name}_details" in found:
            found[f"{name}_details"] = total.why
        found["luthier"] = total.why
    return found
