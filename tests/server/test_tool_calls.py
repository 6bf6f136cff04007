"""Calls of tools: read from any text in any pieces, and asked for in the model's own form."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI
from running import running

from luthier.evaluation import calls_in
from luthier.pipeline import Engines
from luthier.recipe import Runtime
from luthier.server.calling import CallReader
from luthier.tokens import CallForm, Tokenizer, call_form
from own_service import Service
from tiny import CHATML, write_model, write_tokenizer

BASE = "tiny/tools"
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather", "description": "The weather somewhere.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"enum": [1, 2, 3]}},
            "required": ["city", "days"], "additionalProperties": False,
        },
    },
}  # fmt: skip
LIGHT: dict[str, Any] = {
    "type": "function",
    "function": {"name": "light", "parameters": {
        "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
        "additionalProperties": False}},
}  # fmt: skip
ASKED: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
HERMES = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for tool in tools %}{{ tool | tojson }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.content %}{{ message.content }}{% endif %}"
    "{% for call in message.tool_calls or [] %}"
    '{{ \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MISTRAL = (
    "{% for message in messages %}{{ '<|im_start|>' }}{{ message.content or '' }}"
    "{% if message.tool_calls %}{{ '[TOOL_CALLS][' }}{% for call in message.tool_calls %}"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments, 'id': 'abc'} | tojson }}"
    "{% endfor %}{{ ']' }}{% endif %}{{ '<|im_end|>' }}{% endfor %}"
)
LLAMA = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{{ message.content or '' }}{% for call in message.tool_calls or [] %}"
    '{{ \'{"name": "\' + call.function.name + \'", "parameters": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}' }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
)
TEXTS = (
    'Of course.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    '<tool_call>{"name": "light", "arguments": {"on": true}}</tool_call>\n'
    '<tool_call>{"name": "weather", "arguments": {}}</tool_call>',
    '[TOOL_CALLS][{"name": "light", "arguments": {"on": false}}]',
    ' \n{"name": "weather", "parameters": {"city": "Oslo"}}',
    '{"name": "unknown", "arguments": {}}',
    "<tool_call>{broken",
    "a < b and <tool is no call",
    '{"answer": 3}',
    "   plain text  ",
    "",
)


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (HERMES, CallForm("<tool_call>\n", "\n</tool_call>", "arguments")),
        (MISTRAL, CallForm("[TOOL_CALLS][", "]", "arguments")),
        (LLAMA, CallForm("", "", "parameters")),
        (CHATML, CallForm()),
    ],
)
def test_the_form_of_calls_is_the_templates(tmp_path: Path, template: str, form: CallForm) -> None:
    write_tokenizer(tmp_path, template)
    (tmp_path / "config.json").write_text("{}")
    assert call_form(Tokenizer.load(tmp_path)) == form


@given(text=st.sampled_from(TEXTS) | st.text(alphabet='<tool_call>{}"[] ab\n', max_size=60),
       cuts=st.lists(st.integers(0, 200), max_size=8))  # fmt: skip
def test_in_whatever_pieces_a_text_comes_the_same_is_read(text: str, cuts: list[int]) -> None:
    ends = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(ends)]
    reader = CallReader({"weather", "light"})
    said = "".join(map(reader.add, pieces[:-1]))
    last, calls = reader.end(pieces[-1])
    whole, wanted = CallReader({"weather", "light"}).end(text)
    assert ((said + last).rstrip(), calls) == (whole.rstrip(), wanted)
    known = [call for call in calls_in(text) if call[0] in ("weather", "light")]
    if calls:
        assert calls == known
    else:
        assert said + last == text


def test_what_is_said_before_a_call_is_told_at_once() -> None:
    reader = CallReader({"weather"})
    assert reader.add("Let me look. <") == "Let me look. "
    assert reader.add("tool_call>{") == ""
    said, calls = reader.end('"name": "weather", "arguments": {"city": "Rome"}}</tool_call>')
    assert (said, calls) == ("", [("weather", '{"city": "Rome"}')])


def test_only_one_call_where_only_one_is_wanted() -> None:
    assert len(CallReader({"weather", "light"}).end(TEXTS[1])[1]) == 2
    assert len(CallReader({"weather", "light"}, most=1).end(TEXTS[1])[1]) == 1


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    service = Service(tmp_path_factory.mktemp("service"))
    models = {}
    for name, template in {BASE: HERMES, "tiny/mistral": MISTRAL, "tiny/llama": LLAMA}.items():
        place = write_model(
            service.folder / name.replace("/", "-"), seed=3, max_position_embeddings=2048
        )
        (place / "chat_template.jinja").write_text(template)
        models[name] = place
    engines = Engines(Runtime.model_validate({"device": "cpu"}), slots=4, max_bases=4)
    with running(service, engines, more=models, needs_key=False) as found:
        yield found
    engines.close()


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=address, api_key="none", max_retries=0) as asking:
        yield asking


def ask(client: OpenAI, **more: Any) -> Any:
    given: dict[str, Any] = {"model": BASE, "messages": ASKED, "tools": [WEATHER, LIGHT],
                             "max_tokens": 300, "temperature": 1.0, "seed": 5}  # fmt: skip
    return client.chat.completions.create(**(given | more))


@pytest.mark.enable_socket
@pytest.mark.parametrize("model", [BASE, "tiny/mistral", "tiny/llama"])
def test_a_call_that_is_required_fits_one_of_the_tools(client: OpenAI, model: str) -> None:
    (choice,) = ask(client, model=model, tool_choice="required").choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    tool = {"weather": WEATHER, "light": LIGHT}[call.function.name]
    jsonschema.validate(json.loads(call.function.arguments), tool["function"]["parameters"])


@pytest.mark.enable_socket
def test_the_tool_that_is_named_is_called(client: OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "light"}}
    for seed in range(3):
        (choice,) = ask(client, tool_choice=named, seed=seed).choices
        (call,) = choice.message.tool_calls
        assert call.function.name == "light"
        assert call.id.startswith("call_")
        assert set(json.loads(call.function.arguments)) == {"on"}


@pytest.mark.enable_socket
def test_a_call_gives_no_arguments_that_the_tool_does_not_name(client: OpenAI) -> None:
    choices: Any = {
        "a": {"enum": [1, 2]},
        "b": {"type": "object", "properties": {"c": {"const": 1}}},
    }
    tool = {"type": "function", "function": {"name": "light", "parameters": {
        "type": "object", "properties": choices}}}  # fmt: skip
    for seed in range(4):
        (choice,) = ask(client, tools=[tool], tool_choice="required", seed=seed).choices
        given = json.loads(choice.message.tool_calls[0].function.arguments)
        assert set(given) <= {"a", "b"}
        assert set(given.get("b", ())) <= {"c"}


@pytest.mark.enable_socket
def test_a_streamed_call_is_that_of_the_whole_answer(client: OpenAI) -> None:
    whole = ask(client, tool_choice="required").choices[0]
    chunks = list(ask(client, tool_choice="required", stream=True))
    parts = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    told = [(part.index, part.function.name, part.function.arguments) for part in parts]
    assert told == [
        (i, call.function.name, call.function.arguments)
        for i, call in enumerate(whole.message.tool_calls)
    ]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


@pytest.mark.enable_socket
def test_a_conversation_with_calls_goes_on(client: OpenAI) -> None:
    (choice,) = ask(client, tool_choice="required").choices
    call = choice.message.tool_calls[0]
    answered: Any = [*ASKED, choice.message.model_dump(exclude_none=True),
                     {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]  # fmt: skip
    assert ask(client, messages=answered, tool_choice="none").choices[0].message.tool_calls is None


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tools": [], "tool_choice": "required"}, "names none"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "'other'"),
        ({"tools": [{"type": "function", "function": {"name": "../x"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tools": [{"type": "function", "function": {
            "name": "x", "parameters": {"type": "strange"}}}], "tool_choice": "required"}, "tools"),
    ],
)  # fmt: skip
def test_what_cannot_be_called_is_refused(client: OpenAI, more: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        ask(client, **more)
