"""Models that make rows: any endpoint that speaks OpenAI's protocol, a tuned run, a local model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.curation import TeacherError
from luthier.data import Message
from luthier.models import (
    choose_device,
    default_cache,
    load_model,
    precision,
    probe_devices,
    resolve_source,
)
from luthier.pipeline.endpoints import Asked, Endpoint, NoAnswerError, open_endpoint
from luthier.pipeline.opening import find_run, open_model
from luthier.pipeline.predictors import LocalPredictor
from luthier.pipeline.starting import EARLIER
from luthier.recipe import Model
from luthier.runs import num_cores
from luthier.tokens import Tokenizer

TOKENS = 1024


@dataclass(frozen=True)
class EndpointTeacher:
    """A model behind an address; several threads may ask it."""

    name: str
    endpoint: Endpoint
    how: Asked

    def answer(self, messages: Sequence[Message]) -> str:
        """The answer. Raises TeacherError; ConfigError where nothing could ever be answered."""
        try:
            reply = self.endpoint.ask(messages, self.how)
        except NoAnswerError as error:
            raise TeacherError(str(error)) from error
        if not reply.stopped:
            raise TeacherError("was cut by a limit")
        return reply.text


@dataclass(frozen=True)
class LocalTeacher:
    """A model in this process."""

    name: str
    predictor: LocalPredictor

    def answer(self, messages: Sequence[Message]) -> str:
        """The greedy answer."""
        return self.predictor.answer(messages)


def open_teacher(
    model: str, url: str, workspace: Path, *, temperature: float = 0.7
) -> EndpointTeacher | LocalTeacher:
    """The model that makes rows: behind an address, or local where there is none.

    Raises ConfigError, ModelError.
    """
    if url:
        return EndpointTeacher(model, open_endpoint(url, model), Asked(temperature, TOKENS))
    if model.startswith(EARLIER):
        tuned = open_model(find_run(workspace, model.removeprefix(EARLIER)))
        return LocalTeacher(model, tuned.predictor(model, max_new_tokens=TOKENS))
    folder = resolve_source(Model(source=model), default_cache(), lambda note: None)
    devices = probe_devices()
    device = choose_device("cuda" if devices.has_cuda else "cpu", num_cores())
    dtype = precision("bfloat16" if devices.has_bfloat16 else "float32")
    loaded = load_model(folder.path, dtype=dtype, device=device)
    tokenizer = Tokenizer.load(folder.path)
    predictor = LocalPredictor(model, loaded, tokenizer, max_new_tokens=TOKENS, loss_tokens=TOKENS)
    return LocalTeacher(model, predictor)
