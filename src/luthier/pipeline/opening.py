"""A run's folder becomes a model that answers: to talk to it, or to judge it on other rows."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.data import Message, Reading, prompt_key, read_dataset, refuse_errors
from luthier.data.datasets import Source
from luthier.errors import ConfigError, DataError
from luthier.evaluation import (
    EvaluationResult,
    Kind,
    Predictor,
    SystemResult,
    conclude,
    run_system,
    with_decision,
)
from luthier.models import LanguageModel, ModelFolder, load_adapter
from luthier.pipeline.datasets import Remembered, named_rows
from luthier.pipeline.events import Answered, Event, Note
from luthier.pipeline.judging import judge_of, scorers_of
from luthier.pipeline.means import open_means
from luthier.pipeline.opened_texts import TunedReader, open_reader, reads_texts
from luthier.pipeline.predictors import ZERO_SHOT, LocalPredictor
from luthier.pipeline.preparing import Prepared, for_method, measurable, prepare
from luthier.pipeline.reading import ReadingWork
from luthier.pipeline.recorded import general_of, labels_told, resolved_recipe
from luthier.pipeline.starting import load_start, resolve_start
from luthier.pipeline.work import TUNED, Desk
from luthier.recipe import LoRA, ReadRecipe, Recipe, settled
from luthier.runs import Run, Workspace, write_atomically
from luthier.tokens import Tokenizer


def find_run(workspace: Path, wanted: str) -> Run:
    """The run with this id, name or folder; ConfigError when there is none."""
    opened = Workspace.open(workspace)
    try:
        return opened.find(wanted)
    finally:
        opened.close()


@dataclass(frozen=True)
class TunedModel:
    """A finished run's model, ready to answer."""

    run: Run
    recipe: Recipe
    model: LanguageModel
    tokenizer: Tokenizer

    @property
    def instructions(self) -> str:
        """The system message that all training rows share, or nothing."""
        return self.run.path("instructions.txt").read_text("utf-8")

    def ask(self, question: str) -> str:
        """The answer to one question, under the instructions the model was trained with."""
        instructions = [Message("system", self.instructions)] if self.instructions else []
        return self.answer([*instructions, Message("user", question)])

    def answer(self, messages: list[Message], max_new_tokens: int | None = None) -> str:
        """The greedy answer to a conversation."""
        limit = max_new_tokens or settled(self.recipe.evaluation.max_new_tokens)
        return self.predictor(TUNED, max_new_tokens=limit).answer(messages)

    def predictor(
        self,
        name: str,
        *,
        max_new_tokens: int | None = None,
        observe: Callable[[Event], None] = lambda event: None,
    ) -> LocalPredictor:
        """The model as the evaluation asks it."""
        return LocalPredictor(
            name,
            self.model,
            self.tokenizer,
            max_new_tokens=max_new_tokens or settled(self.recipe.evaluation.max_new_tokens),
            loss_tokens=settled(self.recipe.training.micro_batch_tokens),
            text_tokens=settled(self.recipe.training.max_length),
            observe=lambda done, total: observe(Answered(name, done, total)),
        )


def open_model(run: Run) -> TunedModel:
    """Load what a run made. Raises ConfigError when it has made nothing yet, or writes nothing."""
    recipe = resolved_recipe(run)
    if reads_texts(run):
        raise ConfigError(
            f"was tuned by {recipe.method.kind} and reads texts, but writes none",
            where=run.id,
            accepted="a run of a method whose models write",
            advice=f"ask it with: luthier predict {run.id} --input texts.jsonl",
        )
    adapter, whole = run.path("adapter"), run.path("model")
    if not adapter.is_dir() and not whole.is_dir():
        raise ConfigError(
            f"is {run.record.status} and has no tuned weights yet",
            where=run.id,
            advice="run luthier train with the same recipe again; it goes on where it stopped",
        )
    source = resolve_start(recipe, lambda note: None)
    tokenizer = Tokenizer.load(source.path, recipe.model.chat_template)
    if whole.is_dir():
        model = load_start(recipe, replace(source, path=whole, adapters=()))
    else:
        model = _load_tuned(recipe, source, adapter)
    return TunedModel(run, recipe, model, tokenizer)


def _load_tuned(recipe: Recipe, source: ModelFolder, adapter: Path) -> LanguageModel:
    """The run's start with its adapter; an adapter that went on replaces the one it began as."""
    goes_on = isinstance(recipe.tuning, LoRA) and recipe.tuning.earlier == "continue"
    if goes_on and source.adapters:
        return load_start(recipe, replace(source, adapters=(*source.adapters[:-1], adapter)))
    model = load_start(recipe, source)
    model.network = load_adapter(model.base, adapter)
    model.network.eval()
    return model


def evaluate_run(
    run: Run, rows: Path, observe: Callable[[Event], None] = lambda event: None
) -> EvaluationResult:
    """Judge a finished run against its prompt on other rows; the result is kept in its folder.

    Raises ConfigError for rows that the run learnt from.
    """
    data = resolved_recipe(run).data
    if rows.resolve() in {file.resolve() for file in (data.train, data.validation) if file}:
        raise ConfigError(
            "holds rows that the run learnt from",
            where=str(rows),
            accepted="a file of rows it has not seen",
            advice="how it does on the rows it held out is in its report",
        )
    _refuse_learnt(resolved_recipe(run), rows)
    result, files = (_judge_reader if reads_texts(run) else _judge_writer)(run, rows, observe)
    sha256 = files[str(rows)]
    summary = {
        "rows": str(rows),
        "sha256": sha256,
        "n": len(result.examples),
        "verdict": result.verdict.paragraph if result.verdict else "",
        "systems": {s.name: {m: e.value for m, e in s.estimates.items()} for s in result.systems},
    }
    name = f"on-{rows.stem}-{sha256[:8]}.json"
    write_atomically(run.path("evaluation", name), json.dumps(summary, indent=1))
    return result


def _read_alone(recipe: Recipe, rows: Path, source: Source) -> Reading:
    """All rows of a file together, whatever the recipe's own are."""
    apart = {"validation": None, "test": None, "validation_share": 0.0, "test_share": 0.0}
    data = recipe.data.model_copy(update={**apart, "train": rows, "limit": None})
    return read_dataset(data, source)


def _refuse_learnt(recipe: Recipe, rows: Path) -> None:
    """Raise ConfigError where rows ask what the run's training or validation rows ask.

    Only as long as those are still there.
    """
    asked = _read_alone(recipe, rows, named_rows(recipe)).dataset.train
    try:
        learnt = read_dataset(recipe.data, named_rows(recipe)).dataset
    except (DataError, ConfigError):
        return
    known = {prompt_key(example) for example in (*learnt.train, *learnt.validation)}
    seen = [example for example in asked if prompt_key(example) in known]
    if seen:
        raise ConfigError(
            f"{len(seen)} of {len(asked)} rows ask what the run learnt from, first {seen[0].place}",
            where=str(rows),
            accepted="rows it has not seen",
            advice="leave these out; how it does on the rows it held out is in its report",
        )


def _judge_writer(
    run: Run, rows: Path, observe: Callable[[Event], None]
) -> tuple[EvaluationResult, dict[str, str]]:
    """A model that writes against its prompt alone; the result, and the hashes of what was read."""
    opened = open_model(run)
    source = Remembered(named_rows(opened.recipe))
    reading = _read_alone(opened.recipe, rows, source)
    refuse_errors(reading.findings)
    dataset = for_method(reading.dataset, opened.recipe, labels_told(run))
    examples = measurable(dataset.train)
    evaluation, seed = opened.recipe.evaluation, opened.recipe.training.seed
    scorers = scorers_of(opened.recipe, items=source.items, observe=observe)

    def judge(name: str, kind: Kind) -> SystemResult:
        return run_system(
            opened.predictor(name, observe=observe), kind, examples, scorers, evaluation,
            seed=seed, observe=observe,
        )  # fmt: skip

    systems = [judge(TUNED, "tuned")]
    # In the place of the tuned model: two would take twice the memory.
    start = resolve_start(opened.recipe, lambda note: None)
    opened = replace(opened, model=None)  # type: ignore[arg-type] # lets it go first
    opened = replace(opened, model=load_start(opened.recipe, start))
    systems.append(judge(ZERO_SHOT, "zero_shot"))
    means = open_means(evaluation, opened.recipe.runtime, observe=observe)
    preferring = judge_of(evaluation, means)
    result = conclude(examples, systems, scorers, evaluation, seed=seed, judge=preferring)
    result = replace(result, general=general_of(run))
    return with_decision(result, scorers, evaluation, seed=seed), reading.dataset.files


def _judge_reader(
    run: Run, rows: Path, observe: Callable[[Event], None]
) -> tuple[EvaluationResult, dict[str, str]]:
    """A model of texts against simple methods that learn from its own training rows."""
    recipe = resolved_recipe(run)
    elsewhere = {"corpus": None, "queries": None, "judgements": None}
    recipe = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update=elsewhere),
            "evaluation": recipe.evaluation.model_copy(update={"limit": None}),
        }
    )
    prepared, opened = prepare(ReadRecipe(recipe, {}, ""), judged_on=rows), open_reader(run)
    _check_labels(prepared, opened)
    work, desk = ReadingWork(prepared), Desk(run, observe, lambda text: observe(Note(text)))
    evaluation, seed = recipe.evaluation, recipe.training.seed

    def judge(predictor: Predictor, kind: Kind) -> SystemResult:
        return run_system(
            predictor, kind, prepared.test, work.scorers, evaluation, seed=seed, observe=observe
        )

    systems = [judge(*found) for found in work.baselines(work.load(), desk)]
    work.answering = opened.answering
    systems.append(judge(work.tuned(opened.reader.model, desk), "tuned"))
    result = conclude(prepared.test, systems, work.scorers, evaluation, seed=seed)
    result = with_decision(result, work.scorers, evaluation, seed=seed)
    return result, prepared.dataset.files


def _check_labels(prepared: Prepared, opened: TunedReader) -> None:
    """Raise ConfigError when the training rows have other labels than when the run learnt them."""
    answering, labels = opened.answering, prepared.labels
    if answering is not None and labels is not None and answering.names != labels.names:
        changed = sorted({*answering.names} ^ {*labels.names})
        raise ConfigError(
            f"has other labels by now: {', '.join(changed)}",
            where=str(prepared.recipe.data.train),
            accepted="the rows that the run learnt from",
            advice="put them back, or tune a new run",
        )
