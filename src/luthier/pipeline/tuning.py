"""The order of things, stated once: prepare, baselines, train, evaluate, compare, report.

What is done at each stage is a method's `Work`.

`tune` takes a recipe and gives a finished run. Every stage leaves its result in the run's folder,
so that the same command run again takes up where the last one ended. The test split is looked at by
the prompted baselines before training, and once by the chosen checkpoint after it.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from luthier.data import example_key
from luthier.errors import LuthierError
from luthier.evaluation import (
    EvaluationResult,
    General,
    Kind,
    Prediction,
    Predictor,
    SystemResult,
    Verdict,
    conclude,
    from_json,
    run_system,
    to_json,
    with_decision,
    with_losses,
)
from luthier.pipeline.asking import Numbers
from luthier.pipeline.events import Answered, Event, Note, Ready
from luthier.pipeline.journal import Journal
from luthier.pipeline.judging import judge_of
from luthier.pipeline.learning import Circumstances
from luthier.pipeline.loggers import open_loggers
from luthier.pipeline.means import open_means
from luthier.pipeline.opened_texts import TunedReader, open_reader, reads_texts
from luthier.pipeline.opening import TunedModel, open_model
from luthier.pipeline.preparing import Prepared, prepare
from luthier.pipeline.reading import ReadingWork
from luthier.pipeline.recorded import TOLD
from luthier.pipeline.reporting import build_report
from luthier.pipeline.work import Desk, Work
from luthier.pipeline.writing import WritingWork
from luthier.recipe import TEXT_METHODS, flatten, recipe_from, recipe_hash, settled
from luthier.report import TextDetails, write_report
from luthier.runs import (
    LEARNT_ROWS,
    UNKNOWN,
    Run,
    RunRecord,
    Workspace,
    capture_environment,
    write_atomically,
)
from luthier.training import Outcome, Profile, Profiler, Ranks, join_ranks, leave_ranks

MAX_METRIC = 32
"""Letters of a metric's name in the list of runs; graders may have longer ones."""


@dataclass(frozen=True)
class Tuned:
    """A run that has ended: finished, or interrupted and ready to be taken up again."""

    run: Run
    is_finished: bool
    evaluation: EvaluationResult | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Whether it helped, if the run has finished."""
        return self.evaluation.verdict if self.evaluation else None

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.run.path("report.html")

    @property
    def reads_texts(self) -> bool:
        """Whether the model reads texts, rather than writes."""
        return reads_texts(self.run)

    def open(self) -> TunedModel:
        """Load a tuned model that writes, to ask it."""
        return open_model(self.run)

    @cached_property
    def reader(self) -> TunedReader:
        """The tuned model of texts, to ask for labels or vectors."""
        return open_reader(self.run)

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """Labels with probabilities, or numbers, of texts. Raises ConfigError for other models."""
        return self.reader.predict(texts)

    def embed(self, texts: Sequence[str], *, as_passages: bool = False) -> Numbers:
        """Vectors [n, D] of texts. Raises ConfigError for models that write."""
        return self.reader.embed(texts, as_passages=as_passages)


def tune_from(*, observe: Callable[[Event], None] = lambda event: None, **settings: Any) -> Tuned:
    """Tune from keyword arguments: the sections of a recipe, as in YAML.

    `model` and `data` may be plain strings. Raises LuthierError.
    """
    return tune(prepare(recipe_from(settings), lambda text: observe(Note(text))), observe)


def tune(
    prepared: Prepared,
    observe: Callable[[Event], None] = lambda event: None,
    is_interrupted: Callable[[], bool] = lambda: False,
    *,
    profiles: bool = False,
) -> Tuned:
    """Go the whole path, or the rest of it.

    `is_interrupted` is asked after every step; when it answers true the run is saved and ends
    unfinished. With `profiles`, some steps are measured. Raises LuthierError; the run is then
    marked as failed and can be taken up again.
    """
    runtime = prepared.recipe.runtime
    ranks = join_ranks(settled(runtime.device), is_sharded=runtime.sharding == "fsdp")
    if not ranks.is_first:
        return _follow(prepared, ranks, is_interrupted)
    workspace = Workspace.open(prepared.recipe.runtime.workspace)
    try:
        run, is_resumed = _open_run(workspace, prepared)
        with run.lock():
            observe(Ready(run.id, prepared, is_resumed))
            run.update(status="running", error="")
            try:
                return _Path(run, prepared, ranks, observe, is_interrupted, profiles=profiles).go()
            except LuthierError as error:
                run.update(status="failed", error=str(error))
                raise
            except KeyboardInterrupt:
                run.update(status="interrupted")
                raise
    finally:
        workspace.close()


def _follow(prepared: Prepared, ranks: Ranks, is_interrupted: Callable[[], bool]) -> Tuned:
    """Train as one of several processes; the first one does all the rest."""
    work = work_of(prepared)
    model = work.load()
    # Comes when the first process has evaluated the prompts; its disk may be another one.
    folder, record = ranks.tell((Path(), None))
    assert isinstance(record, RunRecord), "the first process tells it"
    outcome, _ = work.learn(
        model, Circumstances(folder / "checkpoints", ranks, is_interrupted=is_interrupted)
    )
    leave_ranks()
    workspace = Workspace.open(prepared.recipe.runtime.workspace)
    try:
        return Tuned(Run(folder, record, workspace), outcome.status != "interrupted")
    finally:
        workspace.close()


def _open_run(workspace: Workspace, prepared: Prepared) -> tuple[Run, bool]:
    """The unfinished run of the same recipe, data and model, or a new one."""
    identity = (
        recipe_hash(prepared.recipe),
        prepared.dataset.fingerprint,
        prepared.source.sha256,
    )
    found = workspace.resumable(*identity)
    if found is not None:
        return found, True
    resolved = [
        {"path": path, "value": value, "origin": prepared.resolved.origins.get(path, "default")}
        for path, value in flatten(prepared.recipe).items()
    ]
    run = workspace.start(
        prepared.recipe.name or prepared.recipe.data.train.stem[:64],
        {
            "recipe.yaml": prepared.text,
            "recipe.resolved.json": json.dumps(resolved, indent=1),
            "ledger.json": json.dumps(
                [asdict(split.ledger) for split in (prepared.train, prepared.validation)], indent=1
            ),
            "instructions.txt": _shared_instructions(prepared),
            LEARNT_ROWS: "\n".join(_learnt_keys(prepared)),
            "environment.json": json.dumps(capture_environment(), indent=1),
            **({TOLD: json.dumps(asdict(prepared.told))} if prepared.told else {}),
        },
        recipe_hash=identity[0],
        data_fingerprint=identity[1],
        model_sha256=identity[2],
        data_files=prepared.dataset.files,
        model_source=prepared.source.source,
        model_revision=prepared.source.revision,
    )
    return run, False


def _learnt_keys(prepared: Prepared) -> Iterator[str]:
    """Key of each row as training counts them: those that are too long are left out."""
    keys = {example.id: example_key(example) for example in prepared.train.examples}
    ids = (encoded.example_id for encoded in prepared.train.encoded)
    # A long raw text is learnt in pieces, which are numbered.
    return (keys.get(name) or keys.get(name.rpartition("#")[0], UNKNOWN) for name in ids)


def _shared_instructions(prepared: Prepared) -> str:
    """The system message all training rows begin with, so that chatting needs not repeat it."""
    first = {example.prompt[0] for example in prepared.train.examples if example.prompt}
    message = next(iter(first)) if len(first) == 1 else None
    return message.content if message and message.role in ("system", "developer") else ""


class _Path:
    """One run's way from baselines to report."""

    def __init__(
        self,
        run: Run,
        prepared: Prepared,
        ranks: Ranks,
        observe: Callable[[Event], None],
        is_interrupted: Callable[[], bool],
        *,
        profiles: bool,
    ) -> None:
        self.ranks, self.profiles = ranks, profiles
        self.run, self.prepared, self.recipe = run, prepared, prepared.recipe
        loggers = open_loggers(self.recipe.runtime.loggers, run, flatten(self.recipe))
        self.journal = Journal(run, observe, loggers)
        self.observe, self.is_interrupted = observe, is_interrupted
        self.work, self.desk = work_of(prepared, observe), Desk(run, observe, self.journal.warn)
        self.seed = self.recipe.training.seed

    def go(self) -> Tuned:
        """The whole way, or the rest of it."""
        try:
            return self._go()
        finally:
            self.journal.close(is_over=self.run.record.status == "finished")

    def _go(self) -> Tuned:
        with self.journal.stage("load the model"):
            model = self._load()
        with self.journal.stage("evaluate the baselines"):
            systems = [self._system(*found) for found in self.work.baselines(model, self.desk)]
            general = self.work.general(self.desk)
            if general is not None:
                general.before(model)
        with self.journal.stage("train"):
            outcome, model = self._train(model)
        if outcome.status == "interrupted":
            self.run.update(status="interrupted")
            return Tuned(self.run, is_finished=False)
        with self.journal.stage("evaluate the tuned model"):
            systems.append(self._system(self.work.tuned(model, self.desk), "tuned"))
            details = self.work.details(model, systems, self.desk)
            ability = general.after(model) if general is not None else None
        return self._conclude(systems, outcome, details, ability)

    def _load(self) -> Any:
        model = self.work.load()
        if model.padded_because:
            self.journal.warn(f"{model.padded_because}; batches are padded, which is slower")
        return model

    def _system(self, predictor: Predictor, kind: Kind) -> SystemResult:
        """The system's scores, kept in the run's folder and taken from there on a resume."""
        name = re.sub(r"[^a-z0-9]+", "-", predictor.name.lower())
        kept = self.run.path("evaluation", f"{name}.json")
        if kept.is_file():
            return from_json(kept.read_text("utf-8"), SystemResult, where=str(kept))
        result = run_system(
            predictor, kind, self.prepared.test, self.work.scorers, self.recipe.evaluation,
            seed=self.seed, observe=self.observe,
        )  # fmt: skip
        write_atomically(kept, to_json(result))
        return result

    def _train(self, model: Any) -> tuple[Outcome, Any]:
        self.ranks.tell((self.run.folder, self.run.record))
        outcome, model = self.work.learn(
            model,
            Circumstances(
                self.run.path("checkpoints"),
                self.ranks,
                self.journal.observe,
                self.is_interrupted,
                self.journal.resume_after,
                lambda done, total: self.observe(Answered("reference", done, total)),
                Profiler(self._keep_profile) if self.profiles else None,
            ),
        )
        leave_ranks()
        if outcome.status != "interrupted":
            self.work.save(model, self.run)
        return outcome, model

    def _keep_profile(self, profile: Profile) -> None:
        write_atomically(self.run.path("profile.json"), json.dumps(asdict(profile), indent=1))
        self.observe(profile)

    def _conclude(
        self,
        systems: list[SystemResult],
        outcome: Outcome,
        details: TextDetails | None,
        general: General | None,
    ) -> Tuned:
        evaluation, runtime = self.recipe.evaluation, self.recipe.runtime
        result = conclude(
            self.prepared.test, systems, self.work.scorers, evaluation, seed=self.seed,
            judge=judge_of(evaluation, open_means(evaluation, runtime, observe=self.observe)),
        )  # fmt: skip
        result = replace(result, general=general)
        result = with_decision(result, self.work.scorers, evaluation, seed=self.seed)
        losses = [(point.step, point.loss) for point in self.journal.validation()]
        result = with_losses(result, losses)
        self.journal.conclude(systems, outcome.num_steps)
        report = build_report(self.run, self.prepared, result, self.journal, outcome)
        write_report(replace(report, details=details), self.run.folder)
        first = result.comparisons[0] if result.comparisons else None
        self.run.finish(
            "finished",
            metric=result.primary[:MAX_METRIC],
            decision=result.verdict.decision if result.verdict else "",
            before=first.baseline_value if first else None,
            after=first.candidate_value if first else None,
        )
        return Tuned(self.run, is_finished=True, evaluation=result)


def work_of(prepared: Prepared, observe: Callable[[Event], None] = lambda event: None) -> Work:
    """What a recipe's method does at each stage."""
    if prepared.recipe.method.kind in TEXT_METHODS:
        return ReadingWork(prepared)
    return WritingWork(prepared, observe)
