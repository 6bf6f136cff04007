"""A run of an eval: rows are answered and judged; what came of all, with honest intervals.

Beside OpenAI's counts each criterion has a confidence interval, the run is compared row by row with
the one before on the same rows, and a page says both.
"""

import json
import secrets
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync
from pydantic import TypeAdapter

from luthier.data import Chat, Message, Place
from luthier.errors import DataError, EvaluationError
from luthier.evaluation import (
    EvaluationResult,
    Grade,
    KnownScorer,
    Metric,
    MissingError,
    Prediction,
    SystemResult,
    conclude,
    estimate,
    grade,
)
from luthier.jobs.tables import Body, ErrandRow, ItemRow
from luthier.recipe import Judging, LabelModel, StringCheck
from luthier.report import ReportInput, render_html
from luthier.server.clerk import Errand
from luthier.server.eval_rows import read_rows, request_of, wrong_with
from luthier.server.graders import AnyGrader, means_of
from luthier.server.wire import Wire

CRITERIA: TypeAdapter[list[AnyGrader]] = TypeAdapter(list[AnyGrader])
HALF = 0.5
"""Score from which on an answer passes where a criterion does not say."""
EARLIER = 20
"""Runs before this one that are looked through for one of the same rows."""


async def work_run(errand: Errand) -> None:
    """Answer and judge all rows of a run."""
    found = await errand.do(lambda: errand.service.errands.find_eval(str(errand.row.eval_id)))
    if found is None:
        await errand.change("failed", error={"code": "eval_deleted", "message": "gone"})
        return
    try:
        rows = await errand.do(lambda: read_rows(errand))
    except DataError as error:
        await errand.change("failed", error={"code": "invalid_rows", "message": str(error)})
        return
    criteria = CRITERIA.validate_python(found.config["testing_criteria"])
    schema = found.config["data_source_config"]["item_schema"]
    judging = _Judging(errand, criteria, schema)
    if errand.row.status == "queued":
        await errand.change("in_progress")

    async def one(number: int) -> tuple[str, Body]:
        return await judging.judge(rows[number])

    await errand.each(len(rows), "outputitem_", one)
    outcome = await errand.do(lambda: _outcome(errand, criteria, rows))
    await errand.change("completed", outcome=outcome)


class _Judging:
    """How rows of one run are answered and judged."""

    def __init__(self, errand: Errand, criteria: list[AnyGrader], schema: Body) -> None:
        self._errand, self._criteria, self._schema = errand, criteria, schema
        self._source: Body = errand.row.request["data_source"]
        self._means = means_of(errand.inside)

    async def judge(self, row: Wire) -> tuple[str, Body]:
        """What came of a row: its state and what is kept."""
        kept: Body = {"item": row["item"], "results": [], "sample": {}}
        if wrong := wrong_with(row["item"], self._schema):
            return "error", kept | {"sample": _failed("invalid_item", wrong)}
        if self._source["type"] == "jsonl":
            given = row["sample"] or {}
            text = str(given.get("output_text", ""))
            kept["sample"] = _said([], {"role": "assistant", "content": text}, {})
            sample = {"output_tools": [], **given, "output_text": text}
        else:
            kept["sample"], answer = await self._answer(row["item"])
            if answer is None:
                return "error", kept
            sample = {"output_text": answer.get("content") or "",
                      "output_tools": answer.get("tool_calls") or []}  # fmt: skip
        if "output_json" not in sample:
            sample |= _as_json(sample["output_text"])
        graded = [{"sample": sample, "item": row["item"]}]
        for criterion in self._criteria:
            (given_grade,) = await run_sync(grade, criterion, graded, self._means)
            kept["results"].append(_result(criterion, given_grade))
        if any(result["score"] is None for result in kept["results"]):
            return "error", kept
        return "pass" if all(result["passed"] for result in kept["results"]) else "fail", kept

    async def _answer(self, item: Body) -> tuple[Body, Wire | None]:
        """What is kept of asking the model, and its answer where there is one."""
        try:
            asked = request_of(self._source, item)
        except MissingError as error:
            return _failed("invalid_template", str(error)), None
        reply = await self._errand.inside.post("/v1/chat/completions", asked)
        if reply.error:
            return _failed("model_error", reply.error), None
        choice = reply.body["choices"][0]
        said = _said(asked["messages"], choice["message"], asked)
        usage = reply.body["usage"]
        details = usage.pop("prompt_tokens_details")
        said |= {"finish_reason": choice["finish_reason"],
                 "usage": {**usage, "cached_tokens": details["cached_tokens"]}}  # fmt: skip
        return said, choice["message"]


def _as_json(text: str) -> Body:
    try:
        return {"output_json": json.loads(text)}
    except (ValueError, RecursionError):
        return {}


def _said(messages: list[Wire], answer: Wire, asked: Wire) -> Body:
    return {
        "input": [{"role": m.get("role"), "content": m.get("content")} for m in messages],
        "output": [answer], "finish_reason": "stop", "model": asked.get("model", ""),
        "error": None, "temperature": asked.get("temperature", 1.0),
        "top_p": asked.get("top_p", 1.0), "seed": asked.get("seed", 0),
        "max_completion_tokens": asked.get("max_completion_tokens", 0),
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
                  "cached_tokens": 0},
    }  # fmt: skip


def _failed(code: str, message: str) -> Body:
    return _said([], {"role": "assistant", "content": None}, {}) | {
        "error": {"code": code, "message": message}
    }


def _is_check(criterion: AnyGrader) -> bool:
    """Whether its score is 0 or 1."""
    return isinstance(criterion, StringCheck | LabelModel) or criterion.pass_threshold is not None


def _result(criterion: AnyGrader, found: Grade) -> Body:
    least = 1.0 if _is_check(criterion) else HALF
    return {
        "name": criterion.name, "type": criterion.type, "score": found.score,
        "passed": found.score is not None and found.score >= least,
        "sample": {"error": found.why} if found.why else None,
    }  # fmt: skip


# What came of all rows


def _outcome(errand: Errand, criteria: Sequence[AnyGrader], rows: Sequence[Wire]) -> Body:
    """Counts as the protocol has them, intervals, the run before, and the page."""
    items = _all_items(errand, errand.row.id)
    digest = sha256(json.dumps([row["item"] for row in rows], sort_keys=True).encode()).hexdigest()
    before = _before(errand, digest)
    systems = [_system(errand.row, items, criteria, is_candidate=True)]
    if before is not None:
        others = _all_items(errand, before.id)
        systems.append(_system(before, others, criteria, is_candidate=False))
    metrics = [_metric(criterion) for criterion in criteria]
    primary = metrics[0].name
    judging = _judging(primary)
    scorers = [KnownScorer(metric) for metric in metrics]
    try:
        result = conclude(_examples(items), systems, scorers, judging)
    except EvaluationError:  # no row is judged in both
        result = conclude(_examples(items), systems[:1], scorers, judging)
    _keep_page(errand, result)
    return {
        "rows": digest,
        "counts": errand.service.errands.counts(errand.row.id),
        "per_testing_criteria_results": [
            {"testing_criteria": c.name,
             "passed": sum(_passed(item, c.name) for item in items),
             "failed": sum(not _passed(item, c.name) for item in items)}
            for c in criteria
        ],
        "per_model_usage": _usage(items),
        "confidence_interval": {
            name: {"value": e.value, "low": e.low, "high": e.high, "n": e.n, "method": e.method}
            for name, e in systems[0].estimates.items()
        },
        "compared_to": _compared(result, before),
        "page": secrets.token_urlsafe(16),
    }  # fmt: skip


def _all_items(errand: Errand, run_id: str) -> list[ItemRow]:
    found: list[ItemRow] = []
    after, has_more = None, True
    while has_more:
        items, has_more = errand.service.errands.items(run_id, after=after, limit=500)
        found += items
        after = found[-1].id if found else None
    return sorted(found, key=lambda item: item.number)


def _before(errand: Errand, digest: str) -> ErrandRow | None:
    """The newest run of the same rows that is done."""
    rows, _ = errand.service.errands.list(
        "eval_run", after=errand.row.id, limit=EARLIER, eval_id=errand.row.eval_id,
        status="completed",
    )  # fmt: skip
    return next((row for row in rows if row.outcome.get("rows") == digest), None)


def _metric(criterion: AnyGrader) -> Metric:
    kind: Any = "pass_fail" if _is_check(criterion) else "number"
    unit: Any = "share" if kind == "pass_fail" or criterion.type == "text_similarity" else "plain"
    return Metric(criterion.name, criterion.name, kind, True, unit)


def _system(
    run: ErrandRow, items: Sequence[ItemRow], criteria: Sequence[AnyGrader], *, is_candidate: bool
) -> SystemResult:
    predictions = tuple(
        Prediction(
            str(item.number), _answer_of(item), stopped=True,
            num_tokens=item.body["sample"]["usage"]["completion_tokens"],
            error=str((item.body["sample"].get("error") or {}).get("message", "")),
        )
        for item in items
    )  # fmt: skip
    scores = {c.name: tuple(_score(item, c.name) for item in items) for c in criteria}
    judging = _judging(criteria[0].name)
    estimates = {c.name: estimate(_metric(c), scores[c.name], judging, seed=0) for c in criteria}
    return SystemResult(
        _name(run), "candidate" if is_candidate else "rival", predictions, scores, estimates,
        seconds=0.0, perplexity=None,
    )  # fmt: skip


def _judging(primary: str) -> Judging:
    """How criteria are weighed, whatever they are called."""
    return Judging().model_copy(update={"primary": primary})


def _name(run: ErrandRow) -> str:
    model = run.request["data_source"].get("model", "answers given")
    return f"{run.request['name'] or model} ({run.id[-6:]})"


def _answer_of(item: ItemRow) -> str:
    output = item.body["sample"].get("output") or [{}]
    return str(output[0].get("content") or json.dumps(output[0].get("tool_calls") or ""))


def _score(item: ItemRow, name: str) -> float | None:
    found = (result["score"] for result in item.body["results"] if result["name"] == name)
    return next(found, None)


def _passed(item: ItemRow, name: str) -> bool:
    return any(r["passed"] for r in item.body["results"] if r["name"] == name)


def _examples(items: Sequence[ItemRow]) -> tuple[Chat, ...]:
    """Rows as the report shows them; what is right is the graders' to say, not shown."""
    return tuple(
        Chat(
            str(item.number),
            Place("rows", item.number + 1),
            (
                *(Message("user", str(m["content"])) for m in item.body["sample"]["input"][-1:]),
                Message("assistant", json.dumps(item.body["item"], ensure_ascii=False)),
            ),
        )
        for item in items
    )


def _usage(items: Sequence[ItemRow]) -> list[Wire]:
    asked = [item.body["sample"] for item in items if item.body["sample"]["model"]]
    if not asked:
        return []
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")
    sums = {name: sum(sample["usage"][name] for sample in asked) for name in names}
    return [{"model_name": asked[0]["model"], "invocation_count": len(asked), **sums}]


def _compared(result: EvaluationResult, before: ErrandRow | None) -> Wire | None:
    if before is None or result.verdict is None:
        return None
    return {
        "run_id": before.id, "decision": result.verdict.decision,
        "words": result.verdict.paragraph,
        "criteria": {
            c.metric: {"difference": c.difference, "low": c.low, "high": c.high,
                       "p_value": c.p_value, "adjusted_p_value": c.adjusted_p_value,
                       "test": c.test, "n": c.n}
            for c in result.comparisons
        },
    }  # fmt: skip


def place_of_page(run_id: str) -> str:
    """Where the page of a run is kept."""
    return f"reports/{run_id}.html"


def _keep_page(errand: Errand, result: EvaluationResult) -> None:
    run = errand.row
    title = run.request["eval_name"] or "Eval"
    page = render_html(
        ReportInput(
            title=f"{title}: {_name(run)}", created_at=datetime.now(UTC), run_id=run.id,
            evaluation=result, data={"rows": len(result.examples)},
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=errand.service.storage.scratch) as folder:
        made = Path(folder) / "page.html"
        made.write_text(page, encoding="utf-8")
        errand.service.storage.keep(place_of_page(run.id), made)
