"""Answered requests wait as candidates; those that somebody accepts or corrects become rows.

Candidates are a dataset of their own. What is decided about them leaves it: accepted ones become
rows of another dataset, whose origin names the request; rejected ones are no more than a number in
the log of the version.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier.curation.logs import LOG_FIELDS, accepted, candidates
from luthier.data import Finding, Place, Row, hash_bytes, read_rows, refuse_errors
from luthier.errors import ConfigError, DataError
from luthier.runs import Content, Datasets, KeptRow, NewRow, Origin, Version


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of reading logs."""

    version: Version
    num_new: int
    num_known: int
    """Requests that are candidates already, or were."""
    left_out: tuple[Finding, ...]
    """Lines that hold no request with an answer."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a candidate."""

    is_accepted: bool
    correction: str | None = None
    """The answer that it should have been."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What came of decisions."""

    version: Version | None
    """With the new rows; None where none was accepted."""
    remaining: Version | None
    """Candidates that are still to be decided; None where there are none."""
    num_accepted: int
    num_corrected: int
    num_rejected: int


def import_logs(
    datasets: Datasets, name: str, logs: Sequence[Path], requests: Sequence[Path] = ()
) -> Imported:
    """Read logs into candidates, after those that wait already.

    `requests` are the input files of batches, whose outputs do not hold what was asked.

    Raises DataError when no line holds a request with an answer.
    """
    earlier = datasets.log(name)[-1] if name in datasets.names() else None
    waiting = list(datasets.content(earlier).rows()) if earlier else []
    known = {row.fields.get("log_id") or row.id for row in waiting}
    known |= set(earlier.details.get("decided", ())) if earlier else set()
    asked = _requests(requests)
    findings: list[Finding] = []
    new: list[NewRow] = []
    num_known = 0
    for log in logs:
        rows = (_joined(row, asked) for row in read_rows(log, findings.append))
        for row, fields in candidates(rows, findings.append):
            candidate = NewRow(fields, None, f"{row.place} {fields['log_id']}".rstrip())
            key = fields["log_id"] or candidate.id
            if key in known:
                num_known += 1
                continue
            known.add(key)
            new.append(candidate)
    refuse_errors(findings)
    if not new and not num_known:
        raise DataError(
            "hold no request with an answer", where=", ".join(map(str, logs)),
            accepted=accepted(), details=[str(finding) for finding in findings[:5]],
        )  # fmt: skip
    if not new and earlier:
        return Imported(earlier, 0, num_known, tuple(findings))
    details: dict[str, Any] = {"files": {str(log): hash_bytes(log) for log in logs}}
    if earlier:
        details["decided"] = earlier.details.get("decided", [])
    origin = Origin("import", earlier.reference if earlier else "", details)
    kept = (NewRow(row.fields, row.split, row.origin) for row in waiting)
    version, _ = datasets.add(name, (*kept, *new), origin)
    return Imported(version, len(new), num_known, tuple(findings))


def _requests(files: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Custom id -> the body that was sent."""
    found: dict[str, dict[str, Any]] = {}
    findings: list[Finding] = []
    for file in files:
        for row in read_rows(file, findings.append):
            if "custom_id" in row.fields and "body" in row.fields:
                found[str(row.fields["custom_id"])] = row.fields["body"]
    refuse_errors(findings)
    return found


def _joined(row: Row, asked: Mapping[str, dict[str, Any]]) -> Row:
    request = asked.get(str(row.fields.get("custom_id")))
    return replace(row, fields={**row.fields, "request": request}) if request else row


def decide(
    datasets: Datasets, version: Version, target: str, decisions: Mapping[str, Decision]
) -> Accepted:
    """Put accepted and corrected candidates behind the rows of a dataset.

    `decisions` are by id of the candidates' rows; the others go on waiting.

    Raises ConfigError for a row that there is not, or where nothing is decided.
    """
    newest = datasets.log(version.name)[-1]
    if version != newest:
        raise ConfigError(
            "is not the newest: some of its rows may be decided", where=version.reference,
            accepted=newest.reference,
        )  # fmt: skip
    if target == version.name:
        raise ConfigError(
            "is where candidates wait", where=target, accepted="another dataset for accepted rows"
        )
    content = datasets.content(version)
    rows = {row.id: row for row in content.rows()}
    decisions = _by_id(content, decisions, version.reference)
    chosen = {row_id: d for row_id, d in decisions.items() if d.is_accepted}
    if not decisions:
        raise ConfigError("nothing is accepted or rejected", where=version.reference)
    parent = datasets.log(target)[-1] if target in datasets.names() else None

    def grown() -> Iterator[NewRow]:
        for kept in datasets.content(parent).rows() if parent else ():
            yield NewRow(kept.fields, kept.split, kept.origin)
        for row_id, decision in chosen.items():
            yield _as_row(rows[row_id], decision)

    num_corrected = sum(decision.correction is not None for decision in chosen.values())
    details = {"candidates": version.reference, "accepted": len(chosen), "corrected": num_corrected}
    origin = Origin("accept", parent.reference if parent else "", details)
    new = datasets.add(target, grown(), origin)[0] if chosen else None
    waiting = [row for row in rows.values() if row.id not in decisions]
    decided = [rows[row_id].fields.get("log_id") or row_id for row_id in decisions]
    details = {"decided": [*version.details.get("decided", ()), *decided]}
    # Also where none waits any more: what was decided is not asked again.
    left, _ = datasets.add(
        version.name,
        [NewRow(row.fields, row.split, row.origin) for row in waiting],
        Origin("accept", version.reference, details),
        may_be_empty=True,
    )
    return Accepted(
        new,
        left if waiting else None,
        len(chosen) - num_corrected,
        num_corrected,
        len(decisions) - len(chosen),
    )


def _by_id(content: Content, decisions: Mapping[str, Decision], where: str) -> dict[str, Decision]:
    """Decisions by whole ids; those given may be their beginnings."""
    found = {}
    for row_id, decision in decisions.items():
        row = content.row(row_id)
        if row is None:
            raise ConfigError(f"has no row {row_id!r}, or several", where=where)
        found[row.id] = decision
    return found


def _as_row(row: KeptRow, decision: Decision) -> NewRow:
    fields = {name: value for name, value in row.fields.items() if name not in LOG_FIELDS}
    said = "accepted"
    if decision.correction is not None:
        *before, answer = fields["messages"]
        answer = {k: v for k, v in answer.items() if k != "tool_calls"}
        fields["messages"] = [*before, {**answer, "content": decision.correction}]
        said = "corrected"
    return NewRow(fields, row.split, f"{row.origin} ({said})")


def read_decisions(place: Path) -> dict[str, Decision]:
    """Decisions from a JSONL of {"row": id, "accept": true, "correction": "..."}.

    Raises DataError for a line that says something else.
    """
    findings: list[Finding] = []
    found = {}
    for row in read_rows(place, findings.append):
        fields = row.fields
        correction = fields.get("correction")
        is_right = isinstance(fields.get("row"), str) and (
            isinstance(fields.get("accept"), bool) or isinstance(correction, str)
        )
        if not is_right or not isinstance(correction, str | None):
            findings.append(_wrong(row.place, f"has the fields {', '.join(fields)}"))
            continue
        found[fields["row"]] = Decision(fields.get("accept", True), correction)
    refuse_errors(findings)
    return found


def _wrong(place: Place, found: str) -> Finding:
    accepted_line = '{"row": ID, "accept": true or false} or {"row": ID, "correction": "..."}'
    return Finding(place, "no-decision", "", found, accepted_line)
