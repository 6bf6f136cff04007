"""A trial: systems answer the same rows, are scored and compared; a report says what came of it.

What a system answered is kept in the trial's folder, so that the same trial again goes on where it
stopped, and its answers can be judged after it is gone.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from luthier.data import (
    Dataset,
    Example,
    Labelled,
    Pair,
    limit_by_hash,
    read_dataset,
    refuse_errors,
)
from luthier.errors import ConfigError
from luthier.evaluation import (
    EvaluationResult,
    Kind,
    Predictor,
    Scorer,
    SystemResult,
    averaged,
    build_scorers,
    combine,
    conclude,
    from_json,
    recorded,
    run_system,
    suggest_metrics,
    to_json,
)
from luthier.pipeline.datasets import NamedRows
from luthier.pipeline.events import Event
from luthier.pipeline.opening import find_run
from luthier.pipeline.preparing import measurable
from luthier.pipeline.starting import EARLIER
from luthier.pipeline.systems import Opener, check_system, kind_of_model, name_of
from luthier.recipe import DATASET, Data, Judging, System, Trial
from luthier.report import ReportInput, write_report
from luthier.runs import Datasets, capture_environment, write_atomically

BYTES_PER_TOKEN = 2
"""Fewer than in nearly any text: what the longest answer is guessed to need where nobody counts."""
ROOM = 16


@dataclass(frozen=True)
class Tried:
    """What came of a trial."""

    result: EvaluationResult
    folder: Path

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / "report.html"


def try_systems(trial: Trial, observe: Callable[[Event], None] = lambda event: None) -> Tried:
    """Ask every system every row, compare the first with the others, and write the report.

    Raises ConfigError, DataError, ModelError, EvaluationError.
    """
    _check_names(trial)
    for system in trial.systems:
        check_system(system, trial.runtime.workspace)
    dataset, warnings = _read(trial)
    test = tuple(limit_by_hash(measurable(dataset.test), trial.evaluation.limit))
    judging, max_new_tokens = _decided(trial, test, dataset.train)
    folder = trial.runtime.workspace / "trials" / _identity(trial, dataset)
    write_atomically(folder / "trial.json", trial.model_dump_json(indent=1))
    answers = trial.runtime.workspace / "answers"
    opener = Opener(trial, dataset.train, max_new_tokens, answers, observe)
    court = _Court(trial, test, judging, folder, observe)
    draws = {name_of(system): court.kept(system) for system in trial.systems}
    missing = [s for s in trial.systems if len(draws[name_of(s)]) < trial.samples]
    for system, drawn in opener.predictors(missing):
        own = draws[name_of(system)]
        for draw in range(len(own), trial.samples):
            own.append(court.judge(system, draw, drawn(draw)))
    result, systems = court.conclude(draws)
    write_report(_report(trial, dataset, result, (*warnings, *_partial(systems))), folder)
    return Tried(result, folder)


@dataclass(frozen=True)
class _Court:
    """Scores the systems of a trial, and keeps what they answered in its folder."""

    trial: Trial
    test: tuple[Example, ...]
    judging: Judging
    folder: Path
    observe: Callable[[Event], None]

    def kept(self, system: System) -> list[SystemResult]:
        """The draws that an earlier call has judged, the first ones in order."""
        found: list[SystemResult] = []
        while (place := self._place(system, len(found))).is_file():
            found.append(from_json(place.read_text("utf-8"), where=str(place)))
        return found[: self.trial.samples]

    def judge(self, system: System, draw: int, predictor: Predictor) -> SystemResult:
        """All rows once. Kept are the answers, and the result unless rows are to be asked again."""
        kind: Kind = "candidate" if system == self.trial.systems[0] else "rival"
        result = run_system(
            predictor, kind, self.test, build_scorers(self.judging), self.judging,
            seed=self.trial.seed, observe=self.observe,
        )  # fmt: skip
        if not any(prediction.error for prediction in result.predictions):
            write_atomically(self._place(system, draw), to_json(result))
        return result

    def conclude(
        self, draws: Mapping[str, list[SystemResult]]
    ) -> tuple[EvaluationResult, list[SystemResult]]:
        """The first system against the others, and what each is over all its draws."""
        scorers: Sequence[Scorer] = build_scorers(self.judging)
        for system in self.trial.systems:
            self._record(system, draws[name_of(system)])
        if self.trial.samples > 1:
            systems = [
                combine(own, scorers, self.test, self.judging, seed=self.trial.seed)
                for own in draws.values()
            ]
            scorers = averaged(scorers, self.trial.samples)
        else:
            systems = [own[0] for own in draws.values()]
        result = conclude(self.test, systems, scorers, self.judging, seed=self.trial.seed)
        return result, [result for own in draws.values() for result in own]

    def _record(self, system: System, draws: list[SystemResult]) -> None:
        """The answers as lines, to be judged when the system is gone."""
        place = self.folder / "answers" / f"{_file_name(system)}.jsonl"
        found = (recorded(self.test, own.predictions, i) for i, own in enumerate(draws))
        write_atomically(place, "".join(f"{json.dumps(x)}\n" for lines in found for x in lines))

    def _place(self, system: System, draw: int) -> Path:
        return self.folder / "systems" / f"{_file_name(system)}.{draw}.json"


def _check_names(trial: Trial) -> None:
    names = [name_of(system) for system in trial.systems]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two are called {twice[0]}", where="systems", accepted="different names",
            advice="give each a name",
        )  # fmt: skip


def _read(trial: Trial) -> tuple[Dataset, tuple[str, ...]]:
    """Rows to answer as the test split, rows to take examples from as the training split."""
    source = NamedRows(Datasets(trial.runtime.workspace))
    apart: dict[str, Any] = {"validation_share": 0.0, "test_share": 0.0}
    if trial.train is not None:
        data = Data(train=trial.train, test=trial.data, **apart)
    else:
        data = Data(train=trial.data, **apart)
    reading = read_dataset(data, source)
    refuse_errors(reading.findings)
    dataset, is_parted = reading.dataset, bool(reading.dataset.test)
    if not is_parted:
        if str(trial.data).startswith(DATASET):
            raise ConfigError(
                "has no held-out rows", where=str(trial.data), advice="luthier data split parts it"
            )
        dataset = replace(dataset, train=(), test=dataset.train)
    wrong = next((e for e in dataset.test if isinstance(e, Labelled | Pair)), None)
    if wrong is not None:
        raise ConfigError(
            "has labels, and systems of a trial write answers",
            where=str(wrong.place),
            accepted="chats, prompts with completions, or preferences",
            advice="a run that reads texts is judged by: luthier evaluate RUN --data FILE",
        )
    shared = [f for f in reading.findings if f.name == "leaked-prompt"]
    if shared and trial.overlap == "refuse":
        raise ConfigError(
            f"{len(shared)} of {len(dataset.test)} rows ask what training rows ask, "
            f"first {shared[0].place}",
            where=str(trial.data),
            accepted="rows that are not in the training rows",
            advice="leave them out, or set overlap=report, and the report says so",
        )
    said = (f"{len(shared)} of {len(dataset.test)} rows ask what training rows ask",)
    return dataset, said if shared else ()


def _decided(
    trial: Trial, test: tuple[Example, ...], train: tuple[Example, ...]
) -> tuple[Judging, int]:
    """How answers are judged, every "auto" decided, and the longest answer in tokens."""
    judging = trial.evaluation
    metrics: Any = judging.metrics
    if metrics == "auto":
        metrics = suggest_metrics(test).metrics
        if any(kind_of_model(system.model) != "local" for system in trial.systems):
            metrics = tuple(m for m in metrics if m in TOLD_BY_TEXT) or metrics
    primary = metrics[0] if judging.primary == "auto" else judging.primary
    longest = max(len(e.target.content.encode("utf-8", "replace")) for e in (train or test))
    guessed = ROOM + longest // BYTES_PER_TOKEN
    limit = guessed if judging.max_new_tokens == "auto" else judging.max_new_tokens
    changes = {"metrics": metrics, "primary": primary, "max_new_tokens": limit}
    return judging.model_copy(update=changes), limit


TOLD_BY_TEXT = (
    "exact", "normalised", "number", "json", "fields", "regex", "chrf", "bleu", "rouge_l", "code",
    "tool_calls", "refusal",
)  # fmt: skip
"""Metrics that need nothing but the answer."""


def _identity(trial: Trial, dataset: Dataset) -> str:
    """Name of the trial's folder: another one for other rows, systems or settings."""
    asked = trial.model_dump(mode="json", exclude={"runtime"})
    asked["files"] = dataset.files
    asked["made_by"] = [_made_by(system, trial.runtime.workspace) for system in trial.systems]
    digest = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', trial.data.stem)[:40]}-{digest[:8]}"


def _made_by(system: System, workspace: Path) -> str:
    """What a system's name may come to mean another time."""
    if system.model.startswith(EARLIER):
        return find_run(workspace, system.model.removeprefix(EARLIER)).id
    path = Path(system.model)
    if kind_of_model(system.model) == "recorded" and path.is_file():
        return sha256(path.read_bytes()).hexdigest()
    return ""


def _file_name(system: System) -> str:
    digest = sha256(system.model_dump_json().encode()).hexdigest()[:8]
    return f"{re.sub(r'[^a-z0-9]+', '-', name_of(system).lower())[:40]}-{digest}"


def _partial(systems: list[SystemResult]) -> tuple[str, ...]:
    """Systems that did not answer all rows."""
    found = []
    for system in systems:
        errors = [p.error for p in system.predictions if p.error]
        if errors:
            found.append(
                f"{system.name} did not answer {len(errors)} of {len(system.predictions)} rows, "
                f"which are left out of its scores; the first: {errors[0]}"
            )
    return tuple(found)


def _report(
    trial: Trial, dataset: Dataset, result: EvaluationResult, warnings: tuple[str, ...]
) -> ReportInput:
    return ReportInput(
        title=f"{name_of(trial.systems[0])} on {trial.data.name}",
        created_at=datetime.now(UTC),
        run_id="",
        evaluation=result,
        environment=json.loads(json.dumps(capture_environment())),
        data={"files": dict(dataset.files), "test rows": len(result.examples)},
        warnings=warnings,
    )
