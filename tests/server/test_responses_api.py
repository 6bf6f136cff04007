"""/v1/responses says what a chat says, whole and in events, to the real client."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel
from running import running

from luthier.pipeline import Engines
from luthier.recipe import Runtime
from own_service import Service

pytestmark = pytest.mark.enable_socket
BASE = "tiny/tiny-model"
LIGHT: Any = {"type": "function", "name": "light", "strict": True, "parameters": {
    "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
    "additionalProperties": False}}  # fmt: skip


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engines = Engines(Runtime.model_validate({"device": "cpu"}), slots=4)
    service = Service(tmp_path_factory.mktemp("service"))
    with running(service, engines, needs_key=False) as found:
        yield found
    engines.close()


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=address, api_key="none", max_retries=0) as asking:
        yield asking


def respond(client: OpenAI, **more: Any) -> Any:
    given: dict[str, Any] = {
        "model": BASE,
        "input": "word 3",
        "temperature": 0,
        "max_output_tokens": 12,
    }
    return client.responses.create(**(given | more))


def test_a_response_says_what_a_chat_says(client: OpenAI) -> None:
    found = respond(client, instructions="Be brief.")
    chat = client.chat.completions.create(
        model=BASE, temperature=0, max_tokens=12,
        messages=[{"role": "system", "content": "Be brief."},
                  {"role": "user", "content": "word 3"}],
    )  # fmt: skip
    assert found.output_text == chat.choices[0].message.content
    assert chat.usage is not None
    assert found.usage.input_tokens == chat.usage.prompt_tokens
    assert found.usage.output_tokens == chat.usage.completion_tokens
    is_cut = chat.choices[0].finish_reason == "length"
    assert found.status == ("incomplete" if is_cut else "completed")
    reason = found.incomplete_details and found.incomplete_details.reason
    assert reason == ("max_output_tokens" if is_cut else None)


def test_a_conversation_is_sent_whole(client: OpenAI) -> None:
    turns: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "word 1"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
        {"type": "function_call", "call_id": "call_1", "name": "light", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "done"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "user", "content": "word 2"},
    ]  # fmt: skip
    assert respond(client, input=turns).output_text


def test_events_tell_the_response_bit_by_bit(client: OpenAI) -> None:
    whole = respond(client)
    events = list(respond(client, stream=True))
    final = events[-1].response
    assert final.output_text == whole.output_text
    deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert deltas == whole.output_text
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(numbers)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] == f"response.{whole.status}"


def test_a_tool_is_called_in_events_as_in_the_whole(client: OpenAI) -> None:
    wanted = {"tools": [LIGHT], "tool_choice": "required", "max_output_tokens": 200}
    found = respond(client, **wanted)
    (call,) = found.output
    assert call.type == "function_call"
    assert set(json.loads(call.arguments)) == {"on"}
    events = list(respond(client, stream=True, **wanted))
    done = next(e for e in events if e.type == "response.function_call_arguments.done")
    assert done.arguments == call.arguments
    assert events[-1].response.output[0].name == "light"


def test_a_schema_is_held_to(client: OpenAI) -> None:
    class Light(BaseModel):
        on: bool

    found = client.responses.parse(model=BASE, input="word 3", text_format=Light, temperature=0)
    assert isinstance(found.output_parsed, Light)


def test_logprobs_are_told_where_they_are_asked_for(client: OpenAI) -> None:
    found = respond(client, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = found.output[0].content[0].logprobs
    assert len(logprobs) == found.usage.output_tokens
    assert len(logprobs[0].top_logprobs) == 2


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
    ],
)
def test_what_is_not_kept_or_read_is_refused(
    client: OpenAI, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, **more)
    assert str(caught.value.param).startswith(param)
