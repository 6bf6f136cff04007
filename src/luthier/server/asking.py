"""Requests to models, as clients write them: checked, and in our own words."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from luthier.data import Message, ToolCall
from luthier.pipeline.engines import Allow, Choosing, Opened
from luthier.server.errors import ApiError

MOST_CHOICES = 16
MOST_STOPS = 16


class Part(BaseModel):
    """A part of a message; only text can be read."""

    type: str
    text: str | None = None


class Function(BaseModel):
    """A function that is called."""

    name: str
    arguments: str


class Call(BaseModel):
    """An earlier call of a tool."""

    id: str = ""
    function: Function


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None

    def message(self) -> Message:
        """The same in our words. Raises ApiError where it has more than text."""
        calls = tuple(ToolCall(c.id, c.function.name, c.function.arguments)
                      for c in self.tool_calls or ())  # fmt: skip
        return Message(
            self.role, self._text(), name=self.name or "", tool_calls=calls,
            tool_call_id=self.tool_call_id or "",
        )  # fmt: skip

    def _text(self) -> str:
        if not isinstance(self.content, list):
            return self.content or ""
        if other := [part.type for part in self.content if part.type != "text"]:
            raise ApiError(400, f"Content of type {other[0]} cannot be read.", param="messages")
        return "".join(part.text or "" for part in self.content)


class StreamOptions(BaseModel):
    """What a stream tells beside text."""

    include_usage: bool = False


class Schema(BaseModel):
    """A schema, as the protocol wraps it."""

    name: str = ""
    content: dict[str, Any] = Field(alias="schema", default_factory=dict)


class ResponseFormat(BaseModel):
    """The form that an answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    def allow(self, opened: Opened) -> Allow | None:
        """Which tokens may follow in one answer. Raises ConfigError."""
        if self.type == "text":
            return None
        given = self.json_schema if self.type == "json_schema" else None
        return opened.loaded.forms.json(given.content if given else None)


class AnswerRequest(BaseModel):
    """What chats and completions have in common; unknown fields are ignored."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MOST_STOPS)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> list[str]:
        """Texts at which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def choosing(self, number: int, opened: Opened) -> Choosing:
        """How the tokens of one of the answers are chosen. Raises ApiError, ConfigError."""
        seed = None if self.seed is None else (self.seed + number) % 2**63
        return Choosing(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p, seed=seed,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logit_bias=self._biases(opened.tokenizer.vocabulary_size), allow=self.allow(opened),
        )  # fmt: skip

    def allow(self, opened: Opened) -> Allow | None:
        """Which tokens may follow in one answer; None where all may."""
        return None

    def _biases(self, vocabulary: int) -> dict[int, float]:
        found = {}
        for word, bias in (self.logit_bias or {}).items():
            if not word.isdecimal() or int(word) >= vocabulary:
                message = f"{word!r} is no token id below {vocabulary}"
                raise ApiError(400, message, param="logit_bias")
            found[int(word)] = bias
        return found


class ChatRequest(AnswerRequest):
    """The body of a chat."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def num_logprobs(self) -> int | None:
        """Likeliest tokens told beside each; None where no log-likelihood is."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def allow(self, opened: Opened) -> Allow | None:
        """As the response format wants it. Raises ConfigError."""
        return self.response_format.allow(opened) if self.response_format else None

    @property
    def limit(self) -> int | None:
        """Tokens that an answer may have, as far as the client says."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(AnswerRequest):
    """The body of a completion: texts or ids that something is to follow."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each of them."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return list(self.prompt)  # type: ignore[arg-type]
