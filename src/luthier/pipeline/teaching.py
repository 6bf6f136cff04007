"""Models that make rows: any endpoint that speaks OpenAI's protocol, a tuned run, a local model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luthier.curation import TeacherError
from luthier.data import Message
from luthier.pipeline.endpoints import Asked, Endpoint, NoAnswerError, open_endpoint
from luthier.pipeline.local import open_local
from luthier.pipeline.predictors import LocalPredictor
from luthier.recipe import Runtime

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
    opened = open_local(model, Runtime(workspace=workspace))
    return LocalTeacher(model, opened.predictor(model, TOKENS))
