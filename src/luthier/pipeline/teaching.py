"""Models that make rows: any endpoint that speaks OpenAI's protocol, a tuned run, a local model."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.curation import TeacherError
from luthier.data import Message
from luthier.errors import ConfigError
from luthier.models import (
    choose_device,
    default_cache,
    load_model,
    precision,
    probe_devices,
    resolve_source,
)
from luthier.pipeline.opening import find_run, open_model
from luthier.pipeline.predictors import LocalPredictor
from luthier.pipeline.starting import EARLIER
from luthier.recipe import Model
from luthier.runs import num_cores
from luthier.tokens import Tokenizer

KEYS = ("LUTHIER_TEACHER_KEY", "OPENAI_API_KEY")
"""Variables of the environment that may hold the endpoint's key."""
RETRIES = 5
TIMEOUT = 120.0
TOKENS = 1024
FATAL = (401, 403, 404)
"""Answers of an endpoint after which it is of no use to go on."""


@dataclass(frozen=True)
class EndpointTeacher:
    """A model behind an address; several threads may ask it."""

    name: str
    client: Any
    temperature: float
    max_tokens: int = TOKENS

    def answer(self, messages: Sequence[Message]) -> str:
        """The answer. Raises TeacherError; ConfigError where nothing could ever be answered."""
        import openai

        given: Any = [{"role": message.role, "content": message.content} for message in messages]
        try:
            done = self.client.chat.completions.create(
                model=self.name, messages=given, temperature=self.temperature,
                max_completion_tokens=self.max_tokens,
            )  # fmt: skip
        except openai.APIStatusError as error:
            if error.status_code in FATAL:
                where = str(self.client.base_url)
                raise ConfigError(f"answers {error.status_code}: {error.message}", where=where,
                                  advice=f"check the model and the key ({' or '.join(KEYS)})",
                                  ) from None  # fmt: skip
            raise TeacherError(error.message) from error
        except openai.APIConnectionError as error:
            raise ConfigError("cannot be reached", where=str(self.client.base_url)) from error
        if not done.choices or done.choices[0].finish_reason == "length":
            raise TeacherError("was cut by a limit")
        return done.choices[0].message.content or ""


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
        return EndpointTeacher(model, _client(url), temperature)
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


def _client(url: str) -> Any:
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "needs the openai package", where="--url", advice="pip install 'luthier[teacher]'"
        ) from error
    key = next((os.environ[name] for name in KEYS if os.environ.get(name)), "none")
    return openai.OpenAI(base_url=url, api_key=key, max_retries=RETRIES, timeout=TIMEOUT)
