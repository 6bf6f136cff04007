"""A model behind an address that speaks OpenAI's protocol: asked once, or for all rows.

What is answered is kept by what was asked, so that broken-off work goes on and nothing is paid for
twice. A row that the endpoint will not answer, after retries, has no answer and says why; an
endpoint that can answer none (a wrong key, nobody there) ends the work.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from luthier.data import Example, Message
from luthier.errors import ConfigError
from luthier.evaluation import ALONE, Prediction, Prompt
from luthier.runs import KeptAnswers

KEY, OPENAI_KEY = "LUTHIER_ENDPOINT_KEY", "OPENAI_API_KEY"
"""Variables of the environment that may hold an endpoint's key, the second for OpenAI alone. With a
host's name behind it (LUTHIER_ENDPOINT_KEY_API_EXAMPLE_COM) the first is told to that host only."""
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
    top_p: float | None = None
    reasoning_effort: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """As a request has them; what is not said is left out."""
        named = {**asdict(self), "max_completion_tokens": self.max_tokens}
        return {k: v for k, v in named.items() if v is not None and k != "max_tokens"}


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
        started = time.perf_counter()
        try:
            done = self.client.chat.completions.create(
                model=self.name, messages=[as_wire(message) for message in messages],
                **how.fields, **more,
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
    """The key that a host is told: its own, or the one for all; OpenAI's is told to nobody else."""
    own = f"{KEY}_{re.sub(r'[^A-Z0-9]', '_', host.upper())}"
    is_openai = host == "openai.com" or host.endswith(".openai.com")
    names = (own, *([OPENAI_KEY] if is_openai else []), KEY)
    return next((os.environ[name] for name in names if os.environ.get(name)), "none")


Question = tuple[Sequence[Message], Sequence[dict[str, Any]]]
"""A conversation, and tools that may be called."""


@dataclass(frozen=True)
class Asking:
    """Asks an endpoint many questions, several at once, and keeps what it answers."""

    endpoint: Endpoint
    how: Asked
    answers: Path
    """Folder of what was answered before."""

    def ask_all(self, questions: Sequence[Question]) -> Iterator[Reply | NoAnswerError]:
        """Each question's answer, or why there is none, in order."""
        kept = self._kept()
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            yield from pool.map(lambda question: self._ask(question, kept), questions)
        finally:
            # After an error or an interrupt nothing further is asked.
            pool.shutdown(cancel_futures=True)

    def new(self, questions: Sequence[Question]) -> list[Question]:
        """Those that were never answered."""
        kept = self._kept()
        return [question for question in questions if kept.find(self._key(question)) is None]

    def _kept(self) -> KeptAnswers:
        source = sha256(f"{self.endpoint.url}#{self.endpoint.name}".encode()).hexdigest()[:16]
        return KeptAnswers(self.answers / f"{source}.jsonl")

    def _key(self, question: Question) -> list[Any]:
        messages, tools = question
        return [[as_wire(message) for message in messages], list(tools), asdict(self.how)]

    def _ask(self, question: Question, kept: KeptAnswers) -> Reply | NoAnswerError:
        known = kept.find(self._key(question))
        if known is not None:
            calls = tuple((name, arguments) for name, arguments in known["tool_calls"])
            return Reply(**{**known, "tool_calls": calls})
        try:
            reply = self.endpoint.ask(question[0], self.how, question[1])
        except NoAnswerError as error:
            return error
        kept.keep(self._key(question), asdict(reply))
        return reply


@dataclass(frozen=True)
class EndpointPredictor:
    """Asks an endpoint all rows. `observe` is told how many are answered."""

    name: str
    asking: Asking
    prompt: Prompt = ALONE
    observe: Callable[[int, int], None] = lambda done, total: None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order; those without an answer say why."""
        chats = self.prompt.asked(examples)
        found: list[Prediction] = []
        for reply in self.asking.ask_all([(chat.prompt, chat.tools) for chat in chats]):
            found.append(_prediction(chats[len(found)].id, reply))
            self.observe(len(found), len(chats))
        return found


def _prediction(name: str, reply: Reply | NoAnswerError) -> Prediction:
    if isinstance(reply, NoAnswerError):
        return Prediction(name, "", stopped=False, num_tokens=0, error=str(reply))
    return Prediction(
        name, reply.text, reply.stopped, reply.num_tokens, tool_calls=reply.tool_calls,
        prompt_tokens=reply.prompt_tokens, seconds=reply.seconds,
    )  # fmt: skip
