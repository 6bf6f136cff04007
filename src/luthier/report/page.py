"""The report's page: one HTML file that needs nothing but a browser.

A `ReportInput` goes in, a document comes out. Every text from data is escaped by the template;
style and script are written into the page and named by their hashes in its Content-Security-Policy,
which forbids everything else, the network included. The page is complete without the script, which
only adds a text search over rows and buttons that copy commands.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from luthier.report.ability import ability_part
from luthier.report.bars import stage_bars
from luthier.report.classes import class_part
from luthier.report.curves import MAX_RUNS, curves_together, loss_chart, rate_chart
from luthier.report.facts import (
    dropped_reasons,
    fact_lines,
    interval_name,
    ledger_lines,
    peak_memory,
    reads_texts,
    recipe_sections,
    training_facts,
)
from luthier.report.numbers import count, counted, duration
from luthier.report.pairing import Pairing, pair_systems
from luthier.report.preferred import duel_lines, least_consistency
from luthier.report.rows import RowTable, rows_side_by_side
from luthier.report.slices import slice_part
from luthier.report.svg import visible
from luthier.report.values import ReportInput
from luthier.report.verdicts import compared, comparison_lines, headline, scores
from luthier.report.watched import watched_charts


def render_html(report: ReportInput) -> str:
    """The whole page as text."""
    return render_template("page.html", {**_evaluation_parts(report), **_run_parts(report)})


def render_template(name: str, parts: Mapping[str, Any]) -> str:
    """A page of one of this room's templates, with style, script and what allows these alone."""
    return _templates().get_template(name).render(**parts, **_assets())


def _evaluation_parts(report: ReportInput) -> dict[str, Any]:
    evaluation = report.evaluation
    pairing = pair_systems(evaluation) if evaluation else None
    parts: dict[str, Any] = {"scores": None, "compared": None, "comparisons": (), "rows": None}
    parts["headline"] = headline(evaluation, pairing)
    duels = evaluation.duels if evaluation else ()
    parts |= {
        "duels": duel_lines(duels),
        "decision": evaluation.decision if evaluation else None,
        "ability": ability_part(evaluation.general if evaluation else None),
        "judge": duels[0].judge if duels else "",
        "candidate": duels[0].candidate if duels else "",
        "least_consistency": least_consistency(),
    }
    if evaluation and pairing:
        parts["scores"] = scores(evaluation, pairing.metric) if evaluation.systems else None
        parts["compared"] = compared(evaluation, pairing)
        parts["comparisons"] = comparison_lines(evaluation)
        parts["rows"] = _rows(report, pairing)
    return parts


def _rows(report: ReportInput, pairing: Pairing) -> RowTable | None:
    if report.evaluation is None or not report.evaluation.examples:
        return None
    return rows_side_by_side(report.evaluation, pairing)


def _run_parts(report: ReportInput) -> dict[str, Any]:
    stages = [(time.stage, time.seconds) for time in report.timings]
    reads = reads_texts(report)
    return {
        "report": report,
        "classes": class_part(report.details),
        "slices": slice_part(report.details),
        "created": f"{report.created_at.day} {report.created_at:%B %Y, %H:%M %Z}".rstrip(),
        "loss_chart": (
            loss_chart(report.curve, report.validation, of_rows=reads) if report.curve else None
        ),
        "rate_chart": rate_chart(report.curve) if report.curve else None,
        "watched": watched_charts(report.validation),
        "runs_chart": curves_together(report.runs),
        "drawn": [run.name for run in report.runs if run.curve][:MAX_RUNS],
        "training": training_facts(report),
        "ledger": ledger_lines(report.ledger),
        "reads": reads,
        "dropped": dropped_reasons(report.ledger),
        "recipe": recipe_sections(report.recipe),
        "environment": fact_lines(report.environment),
        "model": fact_lines(report.model),
        "data": fact_lines(report.data),
        "stage_chart": stage_bars(stages) if stages else None,
        "total_time": duration(sum(seconds for _, seconds in stages)) if stages else "",
        "peak_memory": peak_memory(report),
        "interval": interval_name(report.recipe),
    }


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("luthier.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, counted=counted)
    return environment


def _finalize(value: Any) -> Any:
    """Texts from data without characters that no document may hold; charts as they are."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return visible(value)


@cache
def _assets() -> dict[str, Markup]:
    """Style and script, and the policy that allows these two and nothing else."""
    folder = resources.files("luthier.report")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    # Both ship with the package and hold no data, so they may stand in the page as they are.
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}  # noqa: S704


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
