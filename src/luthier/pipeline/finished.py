"""Finished runs side by side, on the held-out rows that all of them answered; none is asked again.

What a run answered, scored and noted lies in its report. Rows are the same where they ask the same
and have the same answer, whatever file they stand in. The first run is judged against the others as
any system is against its rivals.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from luthier.data import Example, Labelled, LabelSet, example_key, label_kind
from luthier.errors import ConfigError, DataError
from luthier.evaluation import (
    AnyScorer,
    EvaluationResult,
    KnownScorer,
    Metric,
    SystemResult,
    class_scorers,
    conclude,
    number_scorers,
    rescored,
    with_decision,
)
from luthier.pipeline.recorded import resolved_recipe
from luthier.recipe import JUDGE, UNHASHED, Judging, settled
from luthier.report import Differing, Facts, ReportInput, RunLine, read_report, write_report
from luthier.runs import Run, Workspace, capture_environment

ID_LETTERS = 12
"""Of a SHA-256 that are shown."""
Key = tuple[str, int]
"""What a row says, and how many earlier rows say the same."""


@dataclass(frozen=True)
class SideBySide:
    """Runs, compared."""

    result: EvaluationResult
    folder: Path
    differing: tuple[Differing, ...]
    """What the runs differ in: settings, data, time and memory."""

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / "report.html"


@dataclass(frozen=True)
class Finished:
    """A finished run and what its report says."""

    run: Run
    name: str
    report: ReportInput
    result: EvaluationResult

    @property
    def tuned(self) -> SystemResult:
        """The system that the run made."""
        return next(system for system in self.result.systems if system.is_candidate)

    @property
    def keys(self) -> dict[Key, int]:
        """Key of each held-out row -> its place."""
        seen, found = Counter[str](), {}
        for place, example in enumerate(self.result.examples):
            key = example_key(example)
            found[key, seen[key]] = place
            seen[key] += 1
        return found


def compare_runs(runs: Sequence[Run], primary: str = "") -> SideBySide:
    """Judge the first run against the others, on the rows and metrics that they share.

    `primary` is the metric that decides; the first run's, where it is empty. Raises ConfigError for
    runs that have no evaluation, or nothing in common.
    """
    if len({run.id for run in runs}) < len(runs) or len(runs) < 2:
        raise ConfigError(f"are {len(runs)}", where="runs", accepted="two different runs or more")
    names = [run.record.name for run in runs]
    finished = [
        _finished(run, name if names.count(name) == 1 else run.id)
        for run, name in zip(runs, names, strict=True)
    ]
    first = finished[0]
    recipe = resolved_recipe(first.run)
    metrics = _shared_metrics(finished)
    judging = recipe.evaluation.model_copy(
        update={"primary": _primary(primary or settled(recipe.evaluation.primary), metrics)}
    )
    places = _shared_rows(finished)
    examples = tuple(first.result.examples[i] for i in places[0])
    scorers = _scorers(metrics, examples, [each.tuned for each in finished])
    systems = [
        replace(
            rescored(each.tuned, own, examples, scorers, judging, seed=recipe.training.seed),
            name=each.name, kind="rival" if number else "candidate",
        )
        for number, (each, own) in enumerate(zip(finished, places, strict=True))
    ]  # fmt: skip
    result = conclude(examples, systems, scorers, judging, seed=recipe.training.seed)
    result = with_decision(result, scorers, judging, seed=recipe.training.seed)
    folder = first.run.folder.parent.parent / "comparisons" / _identity(runs, judging)
    differing = tuple(_differing(finished))
    write_report(_report(finished, result, differing), folder)
    return SideBySide(result, folder, differing)


def _finished(run: Run, name: str) -> Finished:
    place = run.path("report.json")
    if not place.is_file():
        raise ConfigError(
            f"is {run.record.status} and has no report yet", where=run.id,
            accepted="finished runs", advice="luthier train with its recipe goes on with it",
        )  # fmt: skip
    report = read_report(json.loads(place.read_text("utf-8")))
    if report.evaluation is None or not any(s.is_candidate for s in report.evaluation.systems):
        raise ConfigError("was not evaluated", where=run.id, accepted="runs with held-out rows")
    return Finished(run, name, report, report.evaluation)


def _shared_metrics(finished: Sequence[Finished]) -> list[Metric]:
    """Metrics of all runs, in the first one's order; what a judge said is about other pairs."""
    found = [
        metric
        for metric in finished[0].result.metrics
        if metric.name != JUDGE and all(metric in each.result.metrics for each in finished)
    ]
    if not found:
        named = "; ".join(
            f"{each.name}: {', '.join(metric.name for metric in each.result.metrics)}"
            for each in finished
        )
        raise ConfigError("share no metric", where="runs", details=[named])
    return found


def _primary(wanted: str, metrics: Sequence[Metric]) -> str:
    names = [metric.name for metric in metrics]
    if wanted not in names:
        accepted = f"a metric that all runs have: {', '.join(names)}"
        raise ConfigError(f"is {wanted!r}", where="--primary", accepted=accepted)
    return wanted


def _shared_rows(finished: Sequence[Finished]) -> list[list[int]]:
    """Places of the rows that all runs answered, for each run, in the first one's order."""
    keys = [each.keys for each in finished]
    shared = [key for key in keys[0] if all(key in own for own in keys)]
    if not shared:
        raise ConfigError(
            "have no held-out row in common", where=", ".join(each.name for each in finished),
            advice="luthier evaluate run:ONE run:OTHER --data FILE asks both the same rows",
        )  # fmt: skip
    return [[own[key] for key in shared] for own in keys]


def _scorers(
    metrics: Sequence[Metric], examples: Sequence[Example], systems: Sequence[SystemResult]
) -> list[AnyScorer]:
    """What gives each metric: scores of rows are known, numbers over all rows are counted again."""
    labelled = [example for example in examples if isinstance(example, Labelled)]
    known: Mapping[str, Any] = number_scorers()
    if labelled and (kind := label_kind(labelled)) != "number":
        names = {label for example in labelled for label in example.labels}
        names |= {label for system in systems for p in system.predictions for label in p.labels}
        known = class_scorers(LabelSet(kind, tuple(sorted(names)), ()), labelled)
    return [known[m.name] if m.kind == "whole" else KnownScorer(m) for m in metrics]


def _identity(runs: Sequence[Run], judging: Judging) -> str:
    asked = [*(run.id for run in runs), judging.model_dump_json()]
    digest = sha256("\0".join(asked).encode()).hexdigest()
    return f"{runs[0].record.name[:40]}-{digest[:8]}"


def _differing(finished: Sequence[Finished]) -> Iterator[Differing]:
    """What is not the same in all: model, data, settings; and what each took."""
    for facts in ("model", "data"):
        own: list[Facts] = [getattr(each.report, facts) for each in finished]
        for name in dict.fromkeys(name for some in own for name in some):
            yield from _unlike(f"{facts}: {name}", [_fact(some.get(name)) for some in own])
    settings = [{line.path: line.value for line in each.report.recipe} for each in finished]
    for path in dict.fromkeys(path for some in settings for path in some):
        if path not in UNHASHED:
            yield from _unlike(path, [_fact(some.get(path)) for some in settings])
    took = [sum(time.seconds for time in each.report.timings) for each in finished]
    yield Differing("seconds in all", tuple(f"{seconds:,.0f}" for seconds in took))
    peaks = [each.report.peak_memory_bytes for each in finished]
    yield Differing("peak memory", tuple(f"{b / 2**30:.1f} GiB" if b else "" for b in peaks))


def _unlike(what: str, values: Sequence[str]) -> Iterator[Differing]:
    if len(set(values)) > 1:
        yield Differing(what, tuple(values))


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {str(each)[:ID_LETTERS]}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    text = "" if value is None else str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:ID_LETTERS] if is_hash else text


def _report(
    finished: Sequence[Finished], result: EvaluationResult, differing: tuple[Differing, ...]
) -> ReportInput:
    most = max(len(each.result.examples) for each in finished)
    left_out = most - len(result.examples)
    said = (f"{left_out} of {most} held-out rows were not answered by all runs, and are left out",)
    return ReportInput(
        title=f"{finished[0].name} beside {', '.join(each.name for each in finished[1:])}",
        created_at=datetime.now(UTC),
        run_id="",
        evaluation=result,
        environment=json.loads(json.dumps(capture_environment())),
        data={"test rows": len(result.examples)},
        warnings=said if left_out else (),
        runs=tuple(
            RunLine(each.name, each.run.id, each.report.curve, each.report.validation)
            for each in finished
        ),
        differing=differing,
    )


@dataclass(frozen=True)
class Entry:
    """A system on a board."""

    system: str
    source: str
    """The run or trial that asked it."""
    model: str
    result: SystemResult
    is_tuned: bool


@dataclass(frozen=True)
class Board:
    """Every system that answered the same held-out rows, the best first."""

    rows: str
    """The file or dataset that they stand in."""
    num_rows: int
    metric: Metric
    entries: tuple[Entry, ...]


def leaderboards(workspace: Workspace, metric: str = "") -> list[Board]:
    """A board for each set of held-out rows of the workspace, the one with most systems first.

    Ordered by `metric`, or by that which most of its reports decide by. Systems that are the same
    prompt of the same model, with the same score, stand there once. Raises ConfigError where no
    report has the metric.
    """
    by_rows: dict[str, list[tuple[str, ReportInput, EvaluationResult]]] = {}
    for source, report in _reports(workspace):
        if report.evaluation is not None and report.evaluation.examples:
            keys = sorted(map(example_key, report.evaluation.examples))
            same = sha256("\0".join(keys).encode()).hexdigest()
            by_rows.setdefault(same, []).append((source, report, report.evaluation))
    boards = [board for some in by_rows.values() for board in _boards(some, metric)]
    if metric and by_rows and not boards:
        names = {m.name for some in by_rows.values() for _, _, r in some for m in r.metrics}
        raise ConfigError(f"is {metric!r}", where="--metric", accepted=", ".join(sorted(names)))
    return sorted(boards, key=lambda board: -len(board.entries))


def _reports(workspace: Workspace) -> Iterator[tuple[str, ReportInput]]:
    places = [
        run.path("report.json") for run in workspace.list() if run.record.status == "finished"
    ]
    places += sorted((workspace.folder / "trials").glob("*/report.json"))
    for place in places:
        try:
            yield place.parent.name, read_report(json.loads(place.read_text("utf-8")))
        except (DataError, ValueError, OSError):
            continue  # of another version, or damaged: the others are worth showing


def _boards(
    some: Sequence[tuple[str, ReportInput, EvaluationResult]], wanted: str
) -> Iterator[Board]:
    name = wanted or Counter(result.primary for _, _, result in some).most_common(1)[0][0]
    found: dict[tuple[str, str, float], Entry] = {}
    metric: Metric | None = None
    for source, report, result in some:
        metric = next((m for m in result.metrics if m.name == name), metric)
        for system in result.systems:
            value = system.estimates[name].value if name in system.estimates else None
            if value is None:
                continue
            is_tuned, model = system.kind == "tuned", str(report.model.get("source", ""))
            key = (source if is_tuned else model, system.name, value)
            found.setdefault(key, Entry(system.name, source, model, system, is_tuned))
    if metric is None:
        return
    sign = -1 if metric.higher_is_better else 1
    ordered = sorted(found.values(), key=lambda e: sign * (e.result.estimates[name].value or 0.0))
    _, report, result = some[0]
    yield Board(_rows_named(report), len(result.examples), metric, tuple(ordered))


def _rows_named(report: ReportInput) -> str:
    files = report.data.get("files")
    names = {Path(name).name for name in files} if isinstance(files, dict) else set[str]()
    return ", ".join(sorted(names)) or report.title
