"""What a check found, as a page and as JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime

from luthier.curation.checking import Checked
from luthier.curation.problems import Problem
from luthier.report import DataReport, FoundProblem, FoundRow, GroupRate, Lengths


def data_report(
    checked: Checked, title: str, created_at: datetime, command: Callable[[Problem], str]
) -> DataReport:
    """All that is said; `command` is what mends a problem, or nothing."""
    lengths = checked.lengths
    return DataReport(
        title=title,
        created_at=created_at,
        num_rows=checked.num_rows,
        problems=tuple(
            FoundProblem(
                problem.name, problem.severity, problem.title, problem.why, problem.num_rows,
                tuple(FoundRow(case.place, case.text, case.detail) for case in problem.cases),
                command(problem),
            )
            for problem in checked.problems
        ),
        splits=checked.splits,
        labels=checked.labels,
        languages=checked.languages,
        slices=checked.slices,
        rates=tuple(GroupRate(**asdict(rate)) for rate in checked.rates),
        lengths=Lengths(**asdict(lengths)) if lengths else None,
        seconds=checked.seconds,
    )  # fmt: skip


def as_json(report: DataReport) -> str:
    """The report as JSON text."""
    content = {**asdict(report), "created_at": report.created_at.isoformat()}
    plain = {k: dict(v) if isinstance(v, Mapping) else v for k, v in content.items()}
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    # Half a surrogate pair is no character; JSON can name it.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
