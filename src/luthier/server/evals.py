"""/v1/evals: what answers are judged by, and runs that judge some."""

from hmac import compare_digest
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Discriminator, Field, Tag

from luthier.jobs.tables import ErrandRow, EvalRow
from luthier.server.access import Asker, Caller, Reader, service_of
from luthier.server.answering import source_of
from luthier.server.asking import ResponseFormat
from luthier.server.errors import ApiError, not_found
from luthier.server.eval_rows import check_schema
from luthier.server.eval_runs import place_of_page
from luthier.server.files import found_file
from luthier.server.graders import AnyGrader, check_grader
from luthier.server.metadata import Metadata
from luthier.server.wire import Wire, eval_object, eval_run_object, output_item_object, page

MOST_CRITERIA = 32
MOST_ROWS = 10_000
"""Of a run whose rows stand in the request."""

router = APIRouter(prefix="/evals")
pages = APIRouter(prefix="/reports")


class Part(BaseModel):
    """Which part of a list is asked for."""

    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "asc"

    def asked(self) -> dict[str, Any]:
        """What the database is asked for."""
        return {**self.model_dump(exclude={"order"}), "is_ascending": self.order == "asc"}


class PartOfRuns(Part):
    """Which runs are asked for."""

    status: str | None = None


class PartOfItems(Part):
    """Which output items are asked for."""

    status: Literal["pass", "fail", "error"] | None = None


class Custom(BaseModel):
    """Rows of one's own."""

    type: Literal["custom"]
    item_schema: dict[str, Any]
    include_sample_schema: bool = False


class EvalRequest(BaseModel):
    """A new eval."""

    data_source_config: Custom
    testing_criteria: Annotated[list[AnyGrader], Field(min_length=1, max_length=MOST_CRITERIA)]
    name: str | None = None
    metadata: Metadata | None = None


class EvalChange(BaseModel):
    """What changes of an eval."""

    name: str | None = None
    metadata: Metadata | None = None


class Row(BaseModel):
    """A row, with an answer where it has one."""

    item: dict[str, Any]
    sample: dict[str, Any] | None = None


class InRequest(BaseModel):
    """Rows that stand in the request."""

    type: Literal["file_content"]
    content: Annotated[list[Row], Field(max_length=MOST_ROWS)]


class InFile(BaseModel):
    """Rows that stand in a file."""

    type: Literal["file_id"]
    id: str


Source = Annotated[InRequest | InFile, Discriminator("type")]


class Text(BaseModel):
    """A text within a message."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class TemplateMessage(BaseModel):
    """A message with places for what a row holds."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Text | list[str | Text]

    @property
    def text(self) -> str:
        """All its texts, one after the other."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        return "\n".join(part if isinstance(part, str) else part.text for part in parts)


class Template(BaseModel):
    """Messages made for each row."""

    type: Literal["template"]
    template: Annotated[list[TemplateMessage], Field(min_length=1)]


class Reference(BaseModel):
    """Messages that a row holds."""

    type: Literal["item_reference"]
    item_reference: str


class Sampling(BaseModel):
    """How answers are drawn."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_completion_tokens: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None


class Given(BaseModel):
    """Answers that are there."""

    type: Literal["jsonl"]
    source: Source


class Asked(BaseModel):
    """Answers that a model is asked for."""

    type: Literal["completions", "responses"]
    source: Source
    model: str
    input_messages: Annotated[Template | Reference, Discriminator("type")]
    sampling_params: Sampling = Sampling()


def _kind(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "asked" if kind in ("completions", "responses") else "given"


DataSource = Annotated[
    Annotated[Given, Tag("given")] | Annotated[Asked, Tag("asked")], Discriminator(_kind)
]


class RunRequest(BaseModel):
    """A new run."""

    data_source: DataSource
    name: str | None = None
    metadata: Metadata | None = None


@router.post("", status_code=201)
def create_eval(body: EvalRequest, caller: Asker) -> Wire:
    """Keep what answers are judged by."""
    names = [grader.name for grader in body.testing_criteria]
    if len(set(names)) < len(names):
        raise ApiError(400, "Two criteria have the same name.", param="testing_criteria")
    for grader in body.testing_criteria:
        check_grader(grader, caller)
    check_schema(body.data_source_config.item_schema)
    config = body.model_dump(mode="json", include={"data_source_config", "testing_criteria"})
    row = EvalRow(name=body.name or "", config=config, meta=body.metadata or {})
    caller.service.errands.add_eval(row)
    caller.note("eval.create", row.id)
    return eval_object(row)


def _found(caller: Caller, eval_id: str) -> EvalRow:
    row = caller.service.errands.find_eval(eval_id)
    if row is None:
        raise not_found("eval", eval_id)
    return row


@router.get("")
def list_evals(caller: Reader, part: Annotated[Part, Query()]) -> Wire:
    """Evals by age."""
    rows, has_more = caller.service.errands.evals(**part.asked())
    return page(rows, eval_object, has_more=has_more)


@router.get("/{eval_id}")
def retrieve_eval(eval_id: str, caller: Reader) -> Wire:
    """One eval."""
    return eval_object(_found(caller, eval_id))


@router.post("/{eval_id}")
def change_eval(eval_id: str, body: EvalChange, caller: Asker) -> Wire:
    """Give an eval another name or other metadata."""
    _found(caller, eval_id)
    changes = {"name": body.name, "meta": body.metadata}
    caller.service.errands.change_eval(
        eval_id, **{name: value for name, value in changes.items() if value is not None}
    )
    return eval_object(_found(caller, eval_id))


@router.delete("/{eval_id}")
def delete_eval(eval_id: str, caller: Asker) -> Wire:
    """Forget an eval."""
    _found(caller, eval_id)
    caller.service.errands.change_eval(eval_id, deleted_at=caller.service.errands.now())
    caller.note("eval.delete", eval_id)
    return {"eval_id": eval_id, "object": "eval.deleted", "deleted": True}


@router.post("/{eval_id}/runs", status_code=201)
def create_run(eval_id: str, body: RunRequest, caller: Asker) -> Wire:
    """Begin to judge answers."""
    found = _found(caller, eval_id)
    source = body.data_source.source
    if isinstance(source, InFile):
        found_file(caller, source.id)
    if isinstance(body.data_source, Asked):
        _check_model(body.data_source.model, caller)
    row = caller.service.errands.create(
        ErrandRow(
            kind="eval_run", status="queued", eval_id=eval_id, error=None, outcome={},
            request={"name": body.name or "", "eval_name": found.name,
                     "data_source": body.data_source.model_dump(mode="json", by_alias=True)},
            meta=body.metadata or {}, asked_by=caller.key_id,
        ),
        "evalrun_",
    )  # fmt: skip
    caller.note("eval.run.create", row.id)
    return eval_run_object(row, caller.address)


def _check_model(name: str, caller: Caller) -> None:
    if source_of(caller, name)[1] == "read":
        raise ApiError(400, f"{name} reads texts, and writes none.", param="data_source.model")


def _found_run(caller: Caller, eval_id: str, run_id: str) -> ErrandRow:
    row = caller.service.errands.find("eval_run", run_id)
    if row is None or row.eval_id != eval_id:
        raise not_found("eval run", run_id)
    return row


@router.get("/{eval_id}/runs")
def list_runs(eval_id: str, caller: Reader, part: Annotated[PartOfRuns, Query()]) -> Wire:
    """Runs of an eval by age."""
    _found(caller, eval_id)
    rows, has_more = caller.service.errands.list("eval_run", eval_id=eval_id, **part.asked())
    return page(rows, lambda row: eval_run_object(row, caller.address), has_more=has_more)


@router.get("/{eval_id}/runs/{run_id}")
def retrieve_run(eval_id: str, run_id: str, caller: Reader) -> Wire:
    """One run."""
    row = _found_run(caller, eval_id, run_id)
    if row.status == "in_progress":
        counts = caller.service.errands.counts(run_id)
        row.outcome = {**row.outcome, "counts": counts}
    return eval_run_object(row, caller.address)


@router.post("/{eval_id}/runs/{run_id}")
def cancel_run(eval_id: str, run_id: str, caller: Asker) -> Wire:
    """Stop a run."""
    _found_run(caller, eval_id, run_id)
    row = caller.service.errands.stop(run_id, "canceled")
    caller.note("eval.run.cancel", run_id)
    return eval_run_object(row, caller.address)


@router.delete("/{eval_id}/runs/{run_id}")
def delete_run(eval_id: str, run_id: str, caller: Asker) -> Wire:
    """Forget a run."""
    _found_run(caller, eval_id, run_id)
    caller.service.errands.delete(run_id)
    caller.note("eval.run.delete", run_id)
    return {"run_id": run_id, "object": "eval.run.deleted", "deleted": True}


@router.get("/{eval_id}/runs/{run_id}/output_items")
def list_output_items(
    eval_id: str, run_id: str, caller: Reader, part: Annotated[PartOfItems, Query()]
) -> Wire:
    """What came of each row."""
    row = _found_run(caller, eval_id, run_id)
    items, has_more = caller.service.errands.items(run_id, **part.asked())
    return page(items, lambda item: output_item_object(item, row), has_more=has_more)


@router.get("/{eval_id}/runs/{run_id}/output_items/{item_id}")
def retrieve_output_item(eval_id: str, run_id: str, item_id: str, caller: Reader) -> Wire:
    """What came of one row."""
    row = _found_run(caller, eval_id, run_id)
    item = caller.service.errands.item(run_id, item_id)
    if item is None:
        raise not_found("output item", item_id)
    return output_item_object(item, row)


@pages.get("/{run_id}/{word}", include_in_schema=False)  # no program reads it
def show_page(run_id: str, word: str, request: Request) -> HTMLResponse:
    """The page of a run, for whoever has its address: browsers send no key."""
    service = service_of(request)
    row = service.errands.find("eval_run", run_id)
    if row is None or not compare_digest(row.outcome.get("page", "").encode(), word.encode()):
        raise not_found("page", run_id)
    with service.storage.open(place_of_page(run_id)) as file:
        return HTMLResponse(file.read(), headers={"x-content-type-options": "nosniff"})
