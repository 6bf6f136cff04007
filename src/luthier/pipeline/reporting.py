"""A run's records become the input of its report."""

import json
from collections.abc import Sequence
from datetime import datetime

from luthier.data import Finding
from luthier.evaluation import EvaluationResult, SystemResult
from luthier.pipeline.journal import Journal
from luthier.pipeline.preparing import Prepared
from luthier.recipe import TEXT_METHODS, Classify
from luthier.report import (
    DroppedRow,
    LedgerSummary,
    NextStep,
    RecipeLine,
    ReportInput,
    SplitLedger,
)
from luthier.runs import Run
from luthier.tokens import Ledger
from luthier.training import Outcome

MAX_WARNINGS = 20


def build_report(
    run: Run,
    prepared: Prepared,
    evaluation: EvaluationResult | None,
    journal: Journal,
    outcome: Outcome,
) -> ReportInput:
    """Everything the report says, from what the run's folder holds and what was just computed."""
    record = run.record
    return ReportInput(
        title=record.name,
        created_at=datetime.fromisoformat(record.created_at),
        run_id=run.id,
        evaluation=evaluation,
        curve=journal.curve(),
        validation=journal.validation(),
        ledger=_ledgers(prepared),
        recipe=_recipe_lines(run),
        environment=json.loads(run.path("environment.json").read_text("utf-8")),
        timings=journal.timings(),
        peak_memory_bytes=journal.peak_memory() or None,
        model={
            "source": record.model_source,
            "revision": record.model_revision,
            "sha256": record.model_sha256,
            "licence": prepared.source.licence,
        },
        data={
            "files": dict(record.data_files),
            "fingerprint": record.data_fingerprint,
            "training rows": len(prepared.train.examples),
            "validation rows": len(prepared.validation.examples),
            "test rows": len(prepared.test),
        },
        next_steps=_next_steps(run, prepared),
        warnings=(
            *journal.warnings(),
            *(unanswered(evaluation.systems) if evaluation else ()),
            *_warnings(prepared.findings, outcome),
            *_cut(prepared),
        ),
    )


def unanswered(systems: Sequence[SystemResult]) -> tuple[str, ...]:
    """Systems that did not answer all rows, and graders that could not judge all answers."""
    found = []
    for system in systems:
        errors = [p.error for p in system.predictions if p.error]
        if errors:
            found.append(
                f"{system.name} did not answer {len(errors)} of {len(system.predictions)} rows, "
                f"which are left out of its scores; the first: {errors[0]}"
            )
        found += [
            f"{grader} could not judge {why}, of what {system.name} answered; these rows have no "
            "score"
            for grader, why in system.unscored.items()
        ]
    return tuple(found)


def _next_steps(run: Run, prepared: Prepared) -> tuple[NextStep, ...]:
    again = NextStep(
        "Evaluate it on other rows", f"luthier evaluate {run.id} --data more-rows.jsonl"
    )
    if prepared.recipe.method.kind not in TEXT_METHODS:
        return (
            NextStep("Talk to the tuned model", f"luthier chat {run.id}"),
            again,
            NextStep("Load it in transformers with PEFT", str(run.path("adapter"))),
        )
    is_own = isinstance(prepared.recipe.method, Classify) and prepared.recipe.method.head == "own"
    library = "transformers" if is_own else "sentence-transformers"
    verb = "Label" if prepared.recipe.method.kind == "classify" else "Embed"
    return (
        NextStep(f"{verb} a file of texts", f"luthier predict {run.id} --input texts.jsonl"),
        again,
        NextStep(f"Load it in {library}", str(run.path("model"))),
    )


def _warnings(findings: tuple[Finding, ...], outcome: Outcome) -> tuple[str, ...]:
    warnings = [str(finding) for finding in findings[:MAX_WARNINGS]]
    if len(findings) > MAX_WARNINGS:
        warnings.append(f"and {len(findings) - MAX_WARNINGS} more warnings about rows")
    if outcome.status == "stopped early":
        warnings.append(
            f"training stopped early after step {outcome.num_steps}; "
            f"the weights are those of step {outcome.best_step}"
        )
    return tuple(warnings)


def _cut(prepared: Prepared) -> tuple[str, ...]:
    """That texts were too long to be read whole."""
    return tuple(
        f"{counted} of {split} longer than what is read; {ends} left out"
        for split, cut in prepared.cut.items()
        if cut
        for counted, ends in [
            ("1 text", "its end is") if len(cut) == 1 else (f"{len(cut):,} texts", "their ends are")
        ]
    )


def _recipe_lines(run: Run) -> tuple[RecipeLine, ...]:
    lines = json.loads(run.path("recipe.resolved.json").read_text("utf-8"))
    return tuple(
        RecipeLine(
            line["path"],
            tuple(line["value"]) if isinstance(line["value"], list) else line["value"],
            line["origin"],
        )
        for line in lines
    )


def _ledgers(prepared: Prepared) -> LedgerSummary:
    test = SplitLedger("test", len(prepared.dataset.test), len(prepared.test))
    learnt = (_ledger(split.ledger) for split in (prepared.train, prepared.validation))
    return LedgerSummary((*learnt, test))


def _ledger(ledger: Ledger) -> SplitLedger:
    return SplitLedger(
        ledger.split,
        ledger.num_rows,
        ledger.num_kept,
        tuple(
            DroppedRow(row.example_id, row.place, row.reason, row.num_tokens)
            for row in ledger.dropped
        ),
        ledger.num_tokens,
        ledger.num_supervised,
        ledger.longest,
    )
