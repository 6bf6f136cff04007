"""Rendering equals transformers' own, and every character knows its message."""

import datetime as dt
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from luthier.data import Message, ToolCall
from luthier.errors import TemplateError
from luthier.tokens import ChatTemplate
from luthier.tokens.tracing import stretches_of
from tiny import CHATML

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
QWEN_STYLE = """{%- macro turn(role, text) -%}
<|im_start|>{{ role ~ '\\n' ~ text }}<|im_end|>
{% endmacro -%}
{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
{{- turn(message.role, content) }}
    {%- else %}
{{- turn(message.role, message.content) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%- endif %}
"""
GENERATION = (
    "{% for m in messages %}{{ '[' ~ m.role ~ ']' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content|upper }}{% endif %}{% endfor %}"
)
CHAT = (
    Message("system", "Be brief.  "),
    Message("user", 'Say "hi" & <bye>\n'),
    Message("assistant", "<think>\nhm\n</think>\n\nhi"),
    Message("user", "again"),
    Message("assistant", "hi\u00e9\U0001f600"),
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def reference(template: str, messages: list[dict[str, Any]], **settings: Any) -> str:
    """The render by transformers itself."""
    rendered = render_jinja_template(
        [messages], chat_template=template, **{"tools": None, **SPECIAL, **settings}
    )
    return str(rendered[0][0])


@pytest.mark.parametrize("template", [CHATML, LLAMA3, QWEN_STYLE, GENERATION])
@pytest.mark.parametrize("prompt", [True, False])
def test_the_render_equals_that_of_transformers(template: str, prompt: bool) -> None:
    messages = [{"role": m.role, "content": m.content} for m in CHAT]
    ours = ChatTemplate(template, SPECIAL).render(CHAT, add_generation_prompt=prompt)
    assert ours == reference(template, messages, add_generation_prompt=prompt)


@pytest.mark.parametrize("template", [CHATML, LLAMA3, QWEN_STYLE])
def test_every_character_of_an_answer_is_traced_to_its_message(template: str) -> None:
    text = ChatTemplate(template, SPECIAL).render(CHAT)
    written: dict[int, str] = {}
    for start, end, message in stretches_of(text):
        written[message] = written.get(message, "") + str.__str__(text)[start:end]
    assert written[4] == CHAT[4].content
    assert written[3] == "again"
    assert set(written) == {0, 1, 2, 3, 4}


def test_tool_calls_are_rendered_and_traced() -> None:
    call = ToolCall("c1", "light", '{"room": "hall", "on": true}')
    messages = (Message("user", "lights"), Message("assistant", "", tool_calls=(call,)))
    tools = ({"type": "function", "function": {"name": "light"}},)
    text = ChatTemplate(LLAMA3, SPECIAL).render(messages, tools)
    wire: list[dict[str, Any]] = [
        {"role": "user", "content": "lights"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "light", "arguments": {"room": "hall", "on": True}},
                }
            ],
        },
    ]
    assert text == reference(LLAMA3, wire, tools=list(tools))
    answer = "".join(str.__str__(text)[a:b] for a, b, m in stretches_of(text) if m == 1)
    assert answer == 'light{"room": "hall", "on": true}'


def test_a_developer_message_becomes_system_where_the_template_does_not_know_it() -> None:
    message = (Message("developer", "Be brief."),)
    assert "<|im_start|>system\nBe brief." in ChatTemplate(CHATML, {}).render(message)
    knowing = CHATML + "{# developer #}"
    assert "<|im_start|>developer\nBe brief." in ChatTemplate(knowing, {}).render(message)


def test_the_clock_of_a_template_comes_from_outside() -> None:
    template = ChatTemplate(
        "{{ strftime_now('%Y-%m-%d') }}", {}, now=lambda: dt.datetime(2020, 2, 3)
    )
    assert template.render(()) == "2020-02-03"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no system turn please') }}",
        "{{ messages[9].content }}",
    ],
)
def test_a_template_that_misbehaves_is_an_error_with_advice(source: str) -> None:
    with pytest.raises(TemplateError, match=r"model\.chat_template"):
        ChatTemplate(source, {}).render(CHAT[:1])


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(TemplateError, match="line 2"):
        ChatTemplate("fine\n{% for %}", {})
