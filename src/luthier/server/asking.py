"""Requests to models, as clients write them: checked, and in our own words."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from luthier.data import Message, ToolCall
from luthier.pipeline.engines import Choosing, Opened
from luthier.server.calling import CallReader, schema_of
from luthier.server.errors import ApiError
from luthier.tokens.forms import json_form, tool_call_form

MOST_CHOICES = 16
MOST_STOPS = 16
MOST_TOOLS = 128
COMPLETION_TOKENS = 16
"""Tokens of a completion where the client says nothing: the protocol's own default."""

ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


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


class FunctionSpec(BaseModel):
    """What a tool is called, and takes."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool that may be called."""

    type: Literal["function"]
    function: FunctionSpec


class Named(BaseModel):
    """A function's name."""

    name: str


class ToolChoice(BaseModel):
    """The one tool that is to be called."""

    type: Literal["function"]
    function: Named


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

    @property
    def form(self) -> str:
        """The grammar that answers are held to; empty where they are free. Raises ConfigError."""
        if self.type == "text":
            return ""
        given = self.json_schema if self.type == "json_schema" else None
        return json_form(given.content if given else None)


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
    def count(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

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
            logit_bias=self._biases(opened.tokenizer.vocabulary_size), form=self.form(opened),
        )  # fmt: skip

    def form(self, opened: Opened) -> str:
        """The grammar that answers are held to; empty where they are free. Raises ConfigError."""
        return ""

    def call_reader(self) -> CallReader | None:
        """What takes calls of tools out of the text of one answer."""
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
    tools: Annotated[list[Tool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    store: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def num_logprobs(self) -> int | None:
        """Likeliest tokens told beside each; None where no log-likelihood is."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _chooses_what_is_there(self) -> Self:
        wanted = self.tool_choice
        names = [tool.function.name for tool in self.tools or ()]
        if wanted not in (None, "none", "auto") and not names:
            raise ValueError("tool_choice asks for a call, and tools names none")
        if isinstance(wanted, ToolChoice) and wanted.function.name not in names:
            raise ValueError(f"tool_choice names {wanted.function.name!r}, which tools does not")
        return self

    @property
    def shown(self) -> list[dict[str, Any]]:
        """Tools that the model is told of, as the client wrote them."""
        if self.tool_choice == "none":
            return []
        return [tool.model_dump(exclude_unset=True) for tool in self.tools or ()]

    def call_reader(self) -> CallReader | None:
        """What takes calls of tools out of the text, where some may be called."""
        names = {tool["function"]["name"] for tool in self.shown}
        return (
            CallReader(names, 1 if self.parallel_tool_calls is False else None) if names else None
        )

    def form(self, opened: Opened) -> str:
        """As a wanted call or the response format has it. Raises ConfigError."""
        wanted = self.tool_choice
        if wanted == "required" or isinstance(wanted, ToolChoice):
            form, tools = opened.call_form, self.shown
            if isinstance(wanted, ToolChoice):
                tools = [t for t in tools if t["function"]["name"] == wanted.function.name]
            return tool_call_form(opened.tokenizer, form, schema_of(tools, form.key))
        return self.response_format.form if self.response_format else ""

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
    def limit(self) -> int | None:
        """Tokens that an answer may have."""
        return COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """Likeliest tokens told beside each; None where no log-likelihood is."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each of them."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return list(self.prompt)  # type: ignore[arg-type]
