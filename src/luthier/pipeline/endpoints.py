"""A model behind an address that speaks OpenAI's protocol: asked once, or for all rows.

What is answered is kept by what was asked, so that broken-off work goes on and nothing is paid for
twice. A row that the endpoint will not answer, after retries, has no answer and says why; an
endpoint that can answer none (a wrong key, nobody there) ends the work.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from luthier.data import Chat, Example, Message
from luthier.errors import ConfigError
from luthier.evaluation import ALONE, Prediction, Prompt
from luthier.runs import KeptAnswers

KEY, OPENAI_KEY = "LUTHIER_ENDPOINT_KEY", "OPENAI_API_KEY"
"""Variables of the environment that may hold the endpoint's key; the second for OpenAI alone."""
RETRIES = 5
TIMEOUT = 120.0
AT_ONCE = 8
"""Requests on their way together."""
FATAL = (401, 403, 404)
"""Statuses after which it is of no use to go on."""


class NoAnswerError(Exception):
    """The endpoint did not answer this; says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """How an endpoint is to answer."""

    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint answered, and what it cost."""

    text: str
    stopped: bool
    num_tokens: int
    prompt_tokens: int | None
    seconds: float
    tool_calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments (JSON text) of each call."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address; several threads may ask it."""

    name: str
    client: Any

    @property
    def url(self) -> str:
        """Its address."""
        return str(self.client.base_url)

    def ask(
        self, messages: Sequence[Message], how: Asked, tools: Sequence[dict[str, Any]] = ()
    ) -> Reply:
        """One answer. Raises NoAnswerError; ConfigError where nothing could ever be answered."""
        import openai

        more: dict[str, Any] = {"tools": list(tools)} if tools else {}
        if how.seed is not None:
            more["seed"] = how.seed
        started = time.perf_counter()
        try:
            done = self.client.chat.completions.create(
                model=self.name, messages=[as_wire(message) for message in messages],
                temperature=how.temperature, max_completion_tokens=how.max_tokens, **more,
            )  # fmt: skip
        except openai.APIStatusError as error:
            if error.status_code in FATAL:
                raise ConfigError(
                    f"answers {error.status_code}: {error.message}",
                    where=self.url,
                    advice=f"check the model and the key ({KEY}; of OpenAI also {OPENAI_KEY})",
                ) from None
            raise NoAnswerError(f"status {error.status_code}: {error.message}") from error
        except openai.APITimeoutError as error:
            raise NoAnswerError(f"no answer within {TIMEOUT:g} s") from error
        except openai.APIConnectionError as error:
            raise ConfigError("cannot be reached", where=self.url) from error
        except (openai.OpenAIError, ValueError) as error:
            raise NoAnswerError(f"the answer cannot be read: {error}") from error
        return _reply(done, time.perf_counter() - started)


def _reply(done: Any, seconds: float) -> Reply:
    """Servers leave out what they like; what is not there is no answer."""
    choices: Any = getattr(done, "choices", None)
    message = getattr(choices[0], "message", None) if choices else None
    if message is None:
        raise NoAnswerError("the answer has no message")
    calls = tuple(
        (str(call.function.name), str(call.function.arguments))
        for call in getattr(message, "tool_calls", None) or ()
        if getattr(call, "function", None) is not None
    )
    text = message.content or ""
    if not isinstance(text, str):
        raise NoAnswerError("the answer's content is no text")
    usage = getattr(done, "usage", None)
    return Reply(
        text,
        stopped=choices[0].finish_reason != "length",
        num_tokens=getattr(usage, "completion_tokens", None) or 0,
        prompt_tokens=getattr(usage, "prompt_tokens", None),
        seconds=seconds,
        tool_calls=calls,
    )


def as_wire(message: Message) -> dict[str, Any]:
    """A message as OpenAI's protocol has it."""
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        wire["name"] = message.name
    if message.tool_call_id:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function",
             "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]  # fmt: skip
        wire["content"] = message.content or None
    return wire


def open_endpoint(url: str, model: str) -> Endpoint:
    """A model behind an address. Raises ConfigError."""
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "needs the openai package", where=url, advice="pip install 'luthier[endpoint]'"
        ) from error
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not model:
        raise ConfigError(
            f"is {url}#{model}", where="endpoint", accepted="http(s)://HOST/PATH#MODEL"
        )
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "an address with a password or a query in it",
            where=f"{parts.scheme}://{parts.hostname}",
            advice=f"put the key into {KEY}",
        )
    client = openai.OpenAI(
        base_url=url, api_key=_key_for(parts.hostname), max_retries=RETRIES, timeout=TIMEOUT
    )
    return Endpoint(model, client)


def _key_for(host: str) -> str:
    """The key that a host is told; OpenAI's own is told to nobody else."""
    if key := os.environ.get(KEY):
        return key
    is_openai = host == "openai.com" or host.endswith(".openai.com")
    return os.environ.get(OPENAI_KEY, "none") if is_openai else "none"


@dataclass(frozen=True)
class EndpointPredictor:
    """Asks an endpoint all rows, several at once. `observe` is told how many are answered."""

    name: str
    endpoint: Endpoint
    how: Asked
    answers: Path
    """Folder of what was answered before."""
    prompt: Prompt = ALONE
    observe: Callable[[int, int], None] = lambda done, total: None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order; those without an answer say why."""
        chats = self.prompt.asked(examples)
        source = sha256(f"{self.endpoint.url}#{self.endpoint.name}".encode()).hexdigest()[:16]
        kept = KeptAnswers(self.answers / f"{source}.jsonl")
        found = []
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            for prediction in pool.map(lambda chat: self._predict(chat, kept), chats):
                found.append(prediction)
                self.observe(len(found), len(chats))
        finally:
            # After an error or an interrupt nothing further is asked.
            pool.shutdown(cancel_futures=True)
        return found

    def _predict(self, chat: Chat, kept: KeptAnswers) -> Prediction:
        messages = [as_wire(message) for message in chat.prompt]
        asked = [messages, chat.tools, asdict(self.how)]
        known = kept.find(asked)
        if known is None:
            try:
                reply = self.endpoint.ask(chat.prompt, self.how, chat.tools)
            except NoAnswerError as error:
                return Prediction(chat.id, "", stopped=False, num_tokens=0, error=str(error))
            known = asdict(reply)
            kept.keep(asked, known)
        return Prediction(
            chat.id,
            known["text"],
            known["stopped"],
            known["num_tokens"],
            tool_calls=tuple((name, arguments) for name, arguments in known["tool_calls"]),
            prompt_tokens=known["prompt_tokens"],
            seconds=known["seconds"],
        )
