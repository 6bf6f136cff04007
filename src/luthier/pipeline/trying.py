"""A trial: systems answer the same rows, are scored and compared; a report says what came of it.

What a system answered is kept, so that the same trial again goes on where it stopped, other scores
of the same answers ask nobody again, and answers can be judged after a system is gone.
"""

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from luthier.data import (
    Dataset,
    Example,
    LabelSet,
    Pair,
    as_conversations,
    example_key,
    limit_by_hash,
    read_dataset,
    refuse_errors,
)
from luthier.errors import ConfigError
from luthier.evaluation import (
    Answers,
    AnyScorer,
    EvaluationResult,
    Item,
    Kind,
    Means,
    Prediction,
    Predictor,
    RowScorer,
    SystemResult,
    averaged,
    build_graders,
    build_scorers,
    combine,
    conclude,
    from_json,
    recorded,
    run_system,
    suggest_metrics,
    to_json,
    with_decision,
)
from luthier.pipeline.datasets import NamedRows, Remembered
from luthier.pipeline.events import Event
from luthier.pipeline.judging import judge_of
from luthier.pipeline.means import open_means
from luthier.pipeline.opening import find_run
from luthier.pipeline.preparing import measurable
from luthier.pipeline.recorded import labels_told
from luthier.pipeline.reporting import unanswered
from luthier.pipeline.starting import EARLIER
from luthier.pipeline.systems import (
    Opener,
    check_system,
    identity_of,
    kind_of_model,
    name_of,
)
from luthier.recipe import DATASET, Data, Judging, System, Trial
from luthier.report import ReportInput, write_report
from luthier.runs import Datasets, capture_environment, write_atomically

BYTES_PER_TOKEN = 2
"""Fewer than in nearly any text: what the longest answer is guessed to need where nobody counts."""
ROOM = 16
MILLION = 1_000_000


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
    dataset, items, warnings = _read(trial)
    test = tuple(limit_by_hash(measurable(dataset.test), trial.evaluation.limit))
    judging, max_new_tokens = _decided(trial, test, dataset.train)
    workspace = trial.runtime.workspace
    folder = workspace / "trials" / _identity(trial, dataset)
    write_atomically(folder / "trial.json", trial.model_dump_json(indent=1))
    means = open_means(judging, trial.runtime, items, observe)
    scorers: tuple[RowScorer, ...] = (*build_graders(judging, means), *build_scorers(judging))
    opener = Opener(trial, dataset.train, max_new_tokens, workspace / "answers", observe)
    court = _Court(trial, test, judging, opener, scorers, means, folder, observe)
    drawn = {name_of(system): court.judge(system) for system in opener.ordered()}
    result, systems = court.conclude([drawn[name_of(system)] for system in trial.systems])
    write_report(_report(trial, dataset, result, (*warnings, *unanswered(systems))), folder)
    return Tried(result, folder)


@dataclass
class _Answering:
    """A system that is asked once: what it answered is kept, and given when it is asked again."""

    name: str
    system: System
    place: Path
    open: Callable[[], Predictor]
    seconds: float = 0.0

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """The answers, with their price. They are not kept while some are missing."""
        if self.place.is_file():
            kept = from_json(self.place.read_text("utf-8"), Answers, where=str(self.place))
        else:
            predictor, started = self.open(), time.perf_counter()
            predictions = tuple(predictor.predict(examples))
            kept = Answers(predictions, time.perf_counter() - started)
            if not any(prediction.error for prediction in predictions):
                write_atomically(self.place, to_json(kept))
        self.seconds = kept.seconds
        return [replace(one, cost=self._price(one)) for one in kept.predictions]

    def _price(self, answered: Prediction) -> float | None:
        asked, made = self.system.input_price, self.system.output_price
        if answered.prompt_tokens is None or not (asked or made):
            return None
        return (answered.prompt_tokens * asked + answered.num_tokens * made) / MILLION


@dataclass(frozen=True)
class _Court:
    """Scores the systems of a trial, and keeps what they answered."""

    trial: Trial
    test: tuple[Example, ...]
    judging: Judging
    opener: Opener
    scorers: Sequence[RowScorer]
    means: Means
    folder: Path
    observe: Callable[[Event], None]

    def judge(self, system: System) -> list[SystemResult]:
        """Each of a system's draws: all rows once."""
        kind: Kind = "candidate" if system == self.trial.systems[0] else "rival"
        found = []
        for draw in range(self.trial.samples):
            answering = self._answering(system, draw)
            result = run_system(
                answering, kind, self.test, self.scorers, self.judging, seed=self.trial.seed,
                observe=self.observe,
            )  # fmt: skip
            found.append(replace(result, seconds=answering.seconds))
        # As lines, to be judged when the system is gone.
        lines = (
            line
            for draw, own in enumerate(found)
            for line in recorded(self.test, own.predictions, draw)
        )
        place = self.folder / "answers" / f"{_file_name(system)}.jsonl"
        write_atomically(place, "".join(f"{json.dumps(line)}\n" for line in lines))
        return found

    def conclude(
        self, draws: Sequence[list[SystemResult]]
    ) -> tuple[EvaluationResult, list[SystemResult]]:
        """The first system against the others, and what each is over all its draws."""
        scorers: Sequence[AnyScorer] = self.scorers
        systems = [own[0] for own in draws]
        if self.trial.samples > 1:
            systems = [
                combine(own, self.scorers, self.test, self.judging, seed=self.trial.seed)
                for own in draws
            ]
            scorers = averaged(self.scorers, self.trial.samples)
        result = conclude(
            self.test, systems, scorers, self.judging, seed=self.trial.seed,
            judge=judge_of(self.judging, self.means),
        )  # fmt: skip
        result = with_decision(result, scorers, self.judging, seed=self.trial.seed)
        return result, [result for own in draws for result in own]

    def _answering(self, system: System, draw: int) -> _Answering:
        trial, opener = self.trial, self.opener
        asked = [
            identity_of(system, trial.runtime.workspace), [example_key(e) for e in self.test],
            [example_key(e) for e in opener.train] if system.shots else [], opener.max_new_tokens,
            trial.temperature, trial.seed, draw, trial.runtime.device, trial.runtime.dtype,
        ]  # fmt: skip
        digest = sha256(json.dumps(asked).encode()).hexdigest()[:32]
        place = opener.answers / "systems" / f"{digest}.json"
        return _Answering(name_of(system), system, place, lambda: opener.predictor(system, draw))


def _check_names(trial: Trial) -> None:
    names = [name_of(system) for system in trial.systems]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two are called {twice[0]}", where="systems", accepted="different names",
            advice="give each a name",
        )  # fmt: skip


def _told(trial: Trial) -> LabelSet | None:
    """The labels that the first of the trial's runs was told, unless training rows say others."""
    if trial.train is not None:
        return None
    names = [s.model.removeprefix(EARLIER) for s in trial.systems if s.model.startswith(EARLIER)]
    found = (labels_told(find_run(trial.runtime.workspace, name)) for name in names)
    return next(filter(None, found), None)


def _read(trial: Trial) -> tuple[Dataset, Mapping[str, Item], tuple[str, ...]]:
    """Rows to answer as the test split, rows to take examples from as the training split; the
    fields of those to answer, by their place; and what the report is to warn of."""
    source = Remembered(NamedRows(Datasets(trial.runtime.workspace)))
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
    dataset = as_conversations(dataset, _told(trial))
    wrong = next((e for e in dataset.test if isinstance(e, Pair)), None)
    if wrong is not None:
        raise ConfigError(
            "is a pair of texts, and systems of a trial write answers",
            where=str(wrong.place),
            accepted="chats, prompts with completions, preferences, or texts with labels",
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
    return dataset, source.items, said if shared else ()


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
    primary = judging.primary
    if primary == "auto":
        primary = judging.graders[0].name if judging.graders else metrics[0]
    longest = max(len(e.target.content.encode("utf-8", "replace")) for e in (train or test))
    guessed = ROOM + longest // BYTES_PER_TOKEN
    limit = guessed if judging.max_new_tokens == "auto" else judging.max_new_tokens
    changes = {"metrics": metrics, "primary": primary, "max_new_tokens": limit}
    return judging.model_copy(update=changes), limit


TOLD_BY_TEXT = (
    "exact", "normalised", "number", "json", "fields", "regex", "chrf", "bleu", "rouge_l", "code",
    "tool_calls", "choice", "refusal", "offensive",
)  # fmt: skip
"""Metrics that need nothing but the answer."""


def _identity(trial: Trial, dataset: Dataset) -> str:
    """Name of the trial's folder: another one for other rows, systems or settings."""
    asked = trial.model_dump(mode="json", exclude={"runtime"})
    asked["files"] = dataset.files
    asked["made_by"] = [identity_of(system, trial.runtime.workspace) for system in trial.systems]
    digest = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', trial.data.stem)[:40]}-{digest[:8]}"


def _file_name(system: System) -> str:
    digest = sha256(system.model_dump_json().encode()).hexdigest()[:8]
    return f"{re.sub(r'[^a-z0-9]+', '-', name_of(system).lower())[:40]}-{digest}"


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
