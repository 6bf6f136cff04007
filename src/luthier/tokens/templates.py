"""Messages become text through the model's own chat template, in a sandbox.

The one renderer for training, evaluation and serving. It compiles the model's Jinja template in the
same dialect as transformers (filters, globals, whitespace rules) and returns text whose characters
know the message that wrote them (`tracing`). It knows no tokens and no mask.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from luthier.data import Message
from luthier.errors import TemplateError
from luthier.tokens.tracing import Traced, concat, messages_in


class _TracingCodeGenerator(CodeGenerator):
    """Compiles `a ~ b` to the environment's concat, which keeps origins; str_join would not."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802 - Jinja's name
        self.write("environment.concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _GenerationBlock(Extension):
    """Accepts {% generation %} blocks, which some templates carry, and renders their body."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's interface

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _TracingEnvironment(ImmutableSandboxedEnvironment):
    code_generator_class = _TracingCodeGenerator
    concat = staticmethod(concat)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    text = json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    origins = messages_in(value)
    return Traced.written_by(origins.pop(), text) if len(origins) == 1 else text


def _join(values: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    picked = (value[attribute] if attribute else value for value in values)
    return Traced(d).join(str(value) for value in picked)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


class ChatTemplate:
    """A compiled chat template.

    `special_tokens` are the names templates may use, such as bos_token. `now` is what
    strftime_now reads; templates that print the date make text that changes from day to day.
    """

    def __init__(
        self,
        source: str,
        special_tokens: dict[str, str],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        environment = _TracingEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationBlock, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.filters["join"] = _join
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        self.source = source
        self.special_tokens = special_tokens
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"is not a valid Jinja template: {error.message}",
                where=f"chat template line {error.lineno}",
                advice="name a correct one in model.chat_template",
            ) from error

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of the messages; its characters are traced to the message's index.

        Raises TemplateError when the template refuses the messages.
        """
        keeps_developer = "developer" in self.source
        try:
            return self._template.render(
                messages=[_wire(i, m, keeps_developer) for i, m in enumerate(messages)],
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self.special_tokens,
            )
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            roles = ", ".join(message.role for message in messages)
            raise TemplateError(
                f"the chat template refuses these messages ({roles}): {error}",
                advice="change the rows, or name another template in model.chat_template",
            ) from error


def _wire(index: int, message: Message, keeps_developer: bool) -> dict[str, Any]:
    """The message as templates expect it, every string written by it traced to `index`.

    The role is left untraced: it is the template's header, not the message's words. A developer
    message is a system message to templates that do not know the newer role.
    """
    is_system = message.role == "developer" and not keeps_developer
    wire: dict[str, Any] = {
        "role": "system" if is_system else message.role,
        "content": Traced.written_by(index, message.content),
    }
    if message.name:
        wire["name"] = Traced.written_by(index, message.name)
    if message.tool_call_id:
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": Traced.written_by(index, call.name),
                    "arguments": _traced(index, json.loads(call.arguments)),
                },
            }
            for call in message.tool_calls
        ]
    return wire


def _traced(index: int, value: Any) -> Any:
    """A JSON value with every string in it traced."""
    if isinstance(value, str):
        return Traced.written_by(index, value)
    if isinstance(value, dict):
        return {Traced.written_by(index, key): _traced(index, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_traced(index, item) for item in value]
    return value
