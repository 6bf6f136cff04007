"""The order of things, stated once: prepare, baselines, train, evaluate, compare, report.

`tune` takes a recipe and gives a finished run. Every stage leaves its result in the run's folder,
so that the same command run again takes up where the last one ended. The test split is looked at by
the prompted baselines before training, and once by the chosen checkpoint after it.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luthier.data import Chat
from luthier.errors import LuthierError
from luthier.evaluation import (
    EvaluationResult,
    Kind,
    Scorer,
    SystemResult,
    Verdict,
    build_scorers,
    conclude,
    from_json,
    run_system,
    to_json,
)
from luthier.models import LanguageModel, save_adapter, save_model
from luthier.pipeline.events import Answered, Event, Note, Ready
from luthier.pipeline.journal import Journal
from luthier.pipeline.learning import Circumstances, learn
from luthier.pipeline.loggers import open_loggers
from luthier.pipeline.opening import TunedModel, open_model
from luthier.pipeline.predictors import TUNED, ZERO_SHOT, LocalPredictor, choose_shots
from luthier.pipeline.preparing import Prepared, prepare
from luthier.pipeline.reporting import build_report
from luthier.pipeline.starting import load_start
from luthier.recipe import LoRA, flatten, recipe_from, recipe_hash, settled
from luthier.report import write_report
from luthier.runs import Run, RunRecord, Workspace, capture_environment, write_atomically
from luthier.training import Outcome, Profile, Profiler, Ranks, join_ranks, leave_ranks


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

    def open(self) -> TunedModel:
        """Load the tuned model, to ask it."""
        return open_model(self.run)


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
    model = load_start(prepared.recipe, prepared.source)
    # Comes when the first process has evaluated the prompts; its disk may be another one.
    folder, record = ranks.tell((Path(), None))
    assert isinstance(record, RunRecord), "the first process tells it"
    outcome, _ = learn(
        model, prepared, Circumstances(folder / "checkpoints", ranks, is_interrupted=is_interrupted)
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
            "environment.json": json.dumps(capture_environment(), indent=1),
        },
        recipe_hash=identity[0],
        data_fingerprint=identity[1],
        model_sha256=identity[2],
        data_files=prepared.dataset.files,
        model_source=prepared.source.source,
        model_revision=prepared.source.revision,
    )
    return run, False


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
        self.scorers: tuple[Scorer, ...] = build_scorers(self.recipe.evaluation)
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
        with self.journal.stage("evaluate the prompts"):
            baselines = self._baselines(model)
        with self.journal.stage("train"):
            outcome, model = self._train(model)
        if outcome.status == "interrupted":
            self.run.update(status="interrupted")
            return Tuned(self.run, is_finished=False)
        with self.journal.stage("evaluate the tuned model"):
            tuned = self._system(self._predictor(TUNED, model), "tuned")
        return self._conclude([*baselines, tuned], outcome)

    def _load(self) -> LanguageModel:
        model = load_start(self.recipe, self.prepared.source)
        if model.padded_because:
            self.journal.warn(f"{model.padded_because}; batches are padded, which is slower")
        return model

    def _predictor(
        self, name: str, model: LanguageModel, shots: tuple[Chat, ...] = ()
    ) -> LocalPredictor:
        return LocalPredictor(
            name,
            model,
            self.prepared.tokenizer,
            max_new_tokens=settled(self.recipe.evaluation.max_new_tokens),
            loss_tokens=settled(self.recipe.training.micro_batch_tokens),
            text_tokens=settled(self.recipe.training.max_length),
            shots=shots,
            observe=lambda done, total: self.observe(Answered(name, done, total)),
        )

    def _baselines(self, model: LanguageModel) -> list[SystemResult]:
        """The prompts without training: alone, and with each number of examples."""
        results = [self._system(self._predictor(ZERO_SHOT, model), "zero_shot")]
        if self.recipe.method.kind == "pretrain":
            return results  # a raw text has no prompt to put examples into
        for shots in self._shots():
            name = f"{len(shots)} example{'s' * (len(shots) > 1)} in the prompt"
            results.append(self._system(self._predictor(name, model, shots), "few_shot"))
        return results

    def _shots(self) -> list[tuple[Chat, ...]]:
        """The examples of each such prompt; as many as there are, where there are fewer."""
        rows, seed = self.prepared.train.examples, self.seed
        found = [choose_shots(rows, wanted, seed) for wanted in self.recipe.evaluation.shots]
        return [shots for shots in {len(shots): shots for shots in found}.values() if shots]

    def _system(self, predictor: LocalPredictor, kind: Kind) -> SystemResult:
        """The system's scores, kept in the run's folder and taken from there on a resume."""
        kept = self.run.path("evaluation", f"{predictor.name.replace(' ', '-')}.json")
        if kept.is_file():
            return from_json(kept.read_text("utf-8"), where=str(kept))
        result = run_system(
            predictor, kind, self.prepared.test, self.scorers, self.recipe.evaluation,
            seed=self.seed, observe=self.observe,
        )  # fmt: skip
        write_atomically(kept, to_json(result))
        return result

    def _train(self, model: LanguageModel) -> tuple[Outcome, LanguageModel]:
        self.ranks.tell((self.run.folder, self.run.record))
        outcome, model = learn(
            model,
            self.prepared,
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
            self._save(model)
        return outcome, model

    def _keep_profile(self, profile: Profile) -> None:
        write_atomically(self.run.path("profile.json"), json.dumps(asdict(profile), indent=1))
        self.observe(profile)

    def _save(self, model: LanguageModel) -> None:
        """Write what learnt into the run's folder: an adapter, or the whole model."""
        is_adapter = isinstance(self.recipe.tuning, LoRA)
        place = self.run.path("adapter" if is_adapter else "model")
        unfinished = place.with_name(f".{place.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_adapter:
            save_adapter(model, unfinished)
        else:
            save_model(model, unfinished, self.prepared.source.path)
        shutil.rmtree(place, ignore_errors=True)
        unfinished.rename(place)

    def _conclude(self, systems: list[SystemResult], outcome: Outcome) -> Tuned:
        metrics = [scorer.metric for scorer in self.scorers]
        result = conclude(
            self.prepared.test, systems, metrics, self.recipe.evaluation, seed=self.seed
        )
        self.journal.conclude(systems, outcome.num_steps)
        report = build_report(self.run, self.prepared, result, self.journal, outcome)
        write_report(report, self.run.folder)
        first = result.comparisons[0] if result.comparisons else None
        self.run.finish(
            "finished",
            metric=result.primary,
            decision=result.verdict.decision if result.verdict else "",
            before=first.baseline_value if first else None,
            after=first.candidate_value if first else None,
        )
        return Tuned(self.run, is_finished=True, evaluation=result)
