"""What graders and judges need from outside: models to ask, vectors of texts, functions.

Functions are those of the person who gives the command, named in a recipe or a file of systems;
nothing from rows or answers names one.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.data import Message
from luthier.errors import ConfigError
from luthier.evaluation import Embed, Item, Means, OwnError, OwnFunction, Said, Sample
from luthier.pipeline.endpoints import Asked, Asking, Endpoint, NoAnswerError, open_endpoint
from luthier.pipeline.events import Event, Note
from luthier.pipeline.placing import open_vectors
from luthier.recipe import (
    ClassifierGrader,
    FunctionGrader,
    Grader,
    Judge,
    Judging,
    LabelModel,
    Multi,
    Runtime,
    SamplingParams,
    ScoreModel,
)

if TYPE_CHECKING:
    from luthier.pipeline.opened_texts import TunedReader

OPENAI = "https://api.openai.com/v1"
TOKENS = 2048
"""Longest answer of a model that judges, where nobody says."""
LETTERS_PER_TOKEN = 4
"""For an estimate of prices."""
USUAL_ANSWER = 150
"""Tokens, for the same."""
MILLION = 1_000_000


def open_means(
    judging: Judging,
    runtime: Runtime,
    items: Mapping[str, Item] | None = None,
    observe: Callable[[Event], None] = lambda event: None,
) -> Means:
    """What graders and the judge of these settings need.

    Raises ConfigError for an address or a function that cannot be; nothing is asked or loaded yet.
    """
    classifiers = _Classifiers(runtime.workspace)
    models = ModelsToAsk(judging.judge, runtime.workspace / "answers", observe)
    for grader in _alone(judging.graders):
        if isinstance(grader, ScoreModel | LabelModel):
            models.open(grader.model)
        elif isinstance(grader, FunctionGrader):
            load_function(grader.path)
        elif isinstance(grader, ClassifierGrader):
            classifiers.check(grader)
    if judging.judge.model:
        models.open(judging.judge.model)
    means = Means(
        models,
        load=load_function,
        classify=classifiers,
        items=items,
    )
    if not judging.embedder:
        return means
    return replace(means, embed=_Vectors(judging.embedder, runtime))


def _alone(graders: Iterable[Grader]) -> Iterator[Grader]:
    """All graders, those within others too."""
    for grader in graders:
        yield from grader.graders.values() if isinstance(grader, Multi) else (grader,)


@dataclass(frozen=True)
class ModelsToAsk:
    """Models behind addresses that grade or judge; what they said before is not asked again."""

    judge: Judge
    answers: Path
    observe: Callable[[Event], None]

    def __call__(
        self, model: str, questions: Sequence[Sequence[Message]], how: SamplingParams
    ) -> list[Said]:
        """The answers, in order. Says beforehand how many are asked, and what it may cost."""
        endpoint = self.open(model)
        asked = Asked(
            how.temperature, how.max_completions_tokens or TOKENS, how.seed, how.top_p,
            how.reasoning_effort,
        )  # fmt: skip
        asking = Asking(endpoint, asked, self.answers)
        wanted = [(question, ()) for question in questions]
        new = asking.new(wanted)
        if new:
            self.observe(Note(self._announced(endpoint.name, [question for question, _ in new])))
        return [
            Said("", str(reply)) if isinstance(reply, NoAnswerError) else Said(reply.text)
            for reply in asking.ask_all(wanted)
        ]

    def open(self, model: str) -> Endpoint:
        """A model by address, or by name at the judge's or else OpenAI's. Raises ConfigError."""
        url, found, name = model.partition("#")
        if found:
            return open_endpoint(url, name)
        beside, found, _ = self.judge.model.partition("#")
        return open_endpoint(beside if found else OPENAI, model)

    def _announced(self, name: str, questions: Sequence[Sequence[Message]]) -> str:
        letters = sum(len(message.content) for asked in questions for message in asked)
        given, made = letters // LETTERS_PER_TOKEN, USUAL_ANSWER * len(questions)
        price = (given * self.judge.input_price + made * self.judge.output_price) / MILLION
        said = f"{name} is asked {len(questions):,} questions, about {given:,} tokens"
        return f"{said}; that costs about {price:.2f}" if price else said


@dataclass
class _Vectors:
    """A model of texts, loaded when it is first asked."""

    source: str
    runtime: Runtime
    _embed: Embed | None = None

    def __call__(self, texts: Sequence[str]) -> Any:
        if self._embed is None:
            self._embed = open_vectors(self.source, self.runtime)
        return self._embed(texts)


@dataclass
class _Classifiers:
    """Classifiers tuned here, each loaded when it is first asked."""

    workspace: Path
    _opened: dict[str, "TunedReader"] = field(default_factory=dict)

    def check(self, grader: ClassifierGrader) -> None:
        """Raise ConfigError where there is no such run, or it has no such label."""
        from luthier.pipeline.measuring import check_label  # which judges by these means
        from luthier.pipeline.opening import find_run

        where = f"evaluation.graders {grader.name}"
        check_label(find_run(self.workspace, grader.run), grader.label, where)

    def __call__(self, run: str, label: str) -> Embed:
        from luthier.pipeline.measuring import of_label
        from luthier.pipeline.opened_texts import open_reader
        from luthier.pipeline.opening import find_run

        if run not in self._opened:
            self._opened[run] = open_reader(find_run(self.workspace, run))
        return of_label(self._opened[run], label)


def load_function(path: str) -> OwnFunction:
    """A function named package.module:function, importable from the working directory too.

    What it raises becomes `OwnError`. Raises ConfigError where there is none.
    """
    module, _, name = path.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"cannot be imported: {type(error).__name__}: {error}",
            where=f"evaluation.graders {path}",
            accepted="package.module:function, from where the command is given",
        ) from error
    if not callable(function):
        raise ConfigError("is no function", where=f"evaluation.graders {path}")

    def guarded(sample: Sample, item: Item) -> object:
        try:
            return function(sample, item)
        except Exception as error:
            raise OwnError(f"{type(error).__name__}: {error}") from error

    return guarded
