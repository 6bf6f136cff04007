"""A run's records become the input of its report."""

import json
from datetime import datetime

from luthier.data import Finding
from luthier.evaluation import EvaluationResult
from luthier.pipeline.journal import Journal
from luthier.pipeline.preparing import Prepared
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
        next_steps=(
            NextStep("Talk to the tuned model", f"luthier chat {run.id}"),
            NextStep(
                "Evaluate it on other rows", f"luthier evaluate {run.id} --data more-rows.jsonl"
            ),
            NextStep("Load it in transformers with PEFT", str(run.path("adapter"))),
        ),
        warnings=(*journal.warnings(), *_warnings(prepared.findings, outcome)),
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
