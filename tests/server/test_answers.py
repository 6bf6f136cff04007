"""Chats and completions: what is answered is what the model says, whole or as it comes."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
import torch
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field
from running import running

from luthier.data import Message
from luthier.models import Engine, generate, load_model
from luthier.pipeline import Engines
from luthier.recipe import Runtime
from luthier.server import Limits
from luthier.tokens import Tokenizer, encode_prompt
from own_service import QUICK, Service, chats, work_until

pytestmark = pytest.mark.enable_socket
ASKED: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "word 3"}]
BASE = "tiny/tiny-model"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """One with a job that is done."""
    service = Service(tmp_path_factory.mktemp("service"))
    job = service.create(
        service.upload(chats(40)), model=BASE, hyperparameters={"n_epochs": 3, "lora_rank": 4},
        settings={"recipe": QUICK},
    )  # fmt: skip
    assert work_until(service, service.worker(), job.id, "succeeded", "failed").fine_tuned_model
    return service


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    engines = Engines(Runtime.model_validate({"device": "cpu"}), slots=4)
    with running(service, engines, needs_key=False, limits=Limits(waiting=8)) as found:
        yield found
    engines.close()


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=address, api_key="none", max_retries=0) as asking:
        yield asking


def tuned_name(service: Service) -> str:
    return next(row.id for row in service.models.list() if "ckpt" not in row.id)


def chat(client: OpenAI, **more: Any) -> Any:
    given = {"model": BASE, "messages": ASKED, "temperature": 0, "max_tokens": 12}
    return client.chat.completions.create(**(given | more))


def test_an_answer_is_what_the_model_says(service: Service, client: OpenAI) -> None:
    tokenizer = Tokenizer.load(service.model())
    model = load_model(service.model(), dtype=torch.float32, device=torch.device("cpu"))
    prompt = encode_prompt(tokenizer, [Message("system", "Be brief."), Message("user", "word 3")])
    (wanted,) = generate(model, [prompt], max_new_tokens=12, stop_ids=tokenizer.stop_ids)
    found = chat(client)
    (choice,) = found.choices
    assert choice.message.content == tokenizer.decode(wanted.ids)
    assert choice.finish_reason == ("stop" if wanted.stopped else "length")
    assert found.object == "chat.completion"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (
        len(prompt), len(wanted.ids),
    )  # fmt: skip
    again = chat(client)
    assert again.choices[0].message.content == choice.message.content
    assert again.usage.prompt_tokens_details.cached_tokens == len(prompt) - 1


def test_a_stream_says_the_same(client: OpenAI) -> None:
    wanted = chat(client, n=2, temperature=1, seed=5)
    texts, reasons, roles, usage = {0: "", 1: ""}, {}, [], None
    for chunk in chat(
        client, n=2, temperature=1, seed=5, stream=True, stream_options={"include_usage": True}
    ):
        assert chunk.object == "chat.completion.chunk"
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles += [choice.index] if choice.delta.role else []
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert [texts[0], texts[1]] == [choice.message.content for choice in wanted.choices]
    assert [reasons[0], reasons[1]] == [choice.finish_reason for choice in wanted.choices]
    assert sorted(roles) == [0, 1]
    assert usage is not None
    assert usage.completion_tokens == wanted.usage.completion_tokens
    assert texts[0] != texts[1], "each has luck of its own"


def test_models_that_jobs_made_answer_beside_their_base(service: Service, client: OpenAI) -> None:
    tuned = tuned_name(service)
    checkpoint = client.fine_tuning.jobs.checkpoints.list(
        service.models.find(tuned).job_id  # type: ignore[union-attr]
    ).data[0]
    names = [BASE, tuned, checkpoint.fine_tuned_model_checkpoint]
    alone = {name: chat(client, model=name).choices[0].message.content for name in names}
    assert alone[tuned] == alone[names[2]], "the last step's checkpoint is what was made"
    assert alone[tuned].startswith("yes")
    assert alone[BASE] != alone[tuned]
    together = asyncio.run(_together(str(client.base_url), names * 3))
    assert together == [alone[name] for name in names * 3]


async def _together(address: str, names: list[str]) -> list[str]:
    async with AsyncOpenAI(base_url=address, api_key="none") as client:
        asked = [
            client.chat.completions.create(model=name, messages=ASKED, temperature=0, max_tokens=12)
            for name in names
        ]
        return [found.choices[0].message.content or "" for found in await asyncio.gather(*asked)]


def test_an_answer_ends_before_its_stop_sequence(client: OpenAI) -> None:
    text = chat(client, max_tokens=30).choices[0].message.content
    stop = text[5:8]
    wanted = text[: text.index(stop)]
    found = chat(client, max_tokens=30, stop=[stop, "\x00"])
    assert found.choices[0].message.content == wanted
    assert found.choices[0].finish_reason == "stop"
    streamed = chat(client, max_tokens=30, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == wanted


def test_log_likelihoods_are_told(client: OpenAI) -> None:
    found = chat(client, logprobs=True, top_logprobs=2)
    told = found.choices[0].logprobs.content
    assert len(told) == found.usage.completion_tokens
    assert "".join(token.token for token in told).startswith(found.choices[0].message.content[:3])
    for token in told:
        assert token.logprob <= 0
        assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob
        assert token.top_logprobs[0].token == token.token, "greedy"
        assert bytes(token.bytes).decode() == token.token
    streamed = [c.choices[0].logprobs for c in chat(client, logprobs=True, stream=True)]
    assert sum(len(part.content) for part in streamed if part) == len(told)


class Command(BaseModel):
    intent: Literal["on", "off"]
    rooms: list[Literal["hall", "attic"]] = Field(min_length=1, max_length=3)
    level: int = Field(ge=0, le=9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_answers_are_held_to_a_schema(client: OpenAI, seed: int) -> None:
    parsed = client.chat.completions.parse(
        model=BASE, messages=ASKED, response_format=Command, temperature=1, seed=seed, n=2,
        frequency_penalty=2,
    )  # fmt: skip
    for choice in parsed.choices:
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, Command)


def test_answers_are_held_to_json(client: OpenAI) -> None:
    found = chat(client, response_format={"type": "json_object"}, temperature=1, seed=4,
                 frequency_penalty=2, max_tokens=150)  # fmt: skip
    (choice,) = found.choices
    assert choice.message.content.lstrip()[0] == "{"
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


def test_completions_go_on_from_texts_and_ids(service: Service, client: OpenAI) -> None:
    ids = Tokenizer.load(service.model()).encode_opening("word")
    given: dict[str, Any] = {"model": BASE, "temperature": 0, "max_tokens": 5}
    texts = [
        client.completions.create(prompt=prompt, **given).choices[0].text
        for prompt in ("word", ids)
    ]
    assert texts[0] == texts[1]
    many = client.completions.create(prompt=["word", "other"], n=2, **given)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == many.choices[1].text == texts[0]
    streamed = client.completions.create(prompt="word", stream=True, **given)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == texts[0]


@pytest.mark.parametrize("ids", [[10**6], [-1], [5, 2**40]])
def test_tokens_that_do_not_exist_harm_nobody(client: OpenAI, ids: list[int]) -> None:
    with pytest.raises(openai.BadRequestError, match="Token ids"):
        client.completions.create(model=BASE, prompt=ids)
    assert chat(client).choices[0].message.content


def test_completions_tell_how_likely_texts_are(service: Service, client: OpenAI) -> None:
    ids = Tokenizer.load(service.model()).encode_opening("some words")
    given: dict[str, Any] = {"model": BASE, "prompt": ids, "temperature": 0, "logprobs": 2}
    echoed = client.completions.create(echo=True, max_tokens=3, **given).choices[0]
    alone = client.completions.create(max_tokens=3, **given).choices[0]
    told, own = echoed.logprobs, alone.logprobs
    assert told is not None
    assert own is not None
    assert echoed.text == "some words" + alone.text
    assert told.token_logprobs is not None
    assert told.tokens is not None
    assert told.text_offset is not None
    assert told.top_logprobs is not None
    assert len(told.token_logprobs) == len(ids) + 3
    assert told.token_logprobs[0] is None
    assert told.token_logprobs[len(ids) :] == pytest.approx(own.token_logprobs, abs=1e-4)
    assert "".join(told.tokens) == echoed.text
    assert [echoed.text[at] for at in told.text_offset] == [token[0] for token in told.tokens]
    assert all(1 <= len(top) <= 2 for top in told.top_logprobs[1:]), "two may be written alike"
    only = client.completions.create(echo=True, max_tokens=0, **given).choices[0]
    assert only.logprobs is not None
    assert only.logprobs.token_logprobs is not None
    assert only.logprobs.token_logprobs[1:] == pytest.approx(told.token_logprobs[1 : len(ids)])


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "gpt-nowhere"}, 404, "model_not_found"),
        ({"model": "ft:tiny-model:local::12345678"}, 404, "model_not_found"),
        ({"messages": []}, 400, "too_short"),
        ({"messages": [{"role": "wizard", "content": ""}]}, 400, "literal_error"),
        ({"messages": [{"role": "user", "content": "long " * 5000}]}, 400,
         "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None),
        ({"temperature": 3}, 400, "less_than_equal"),
        ({"top_p": 0}, 400, "greater_than"),
        ({"n": 0}, 400, "greater_than_equal"),
        ({"logit_bias": {"many": 1}}, 400, None),
        ({"response_format": {"type": "wish"}}, 400, "literal_error"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "wizard"}}}}, 400, "invalid_value"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused(
    client: OpenAI, changes: dict[str, Any], status: int, code: str | None
) -> None:
    with pytest.raises(openai.APIStatusError) as found:
        chat(client, **changes)
    assert found.value.status_code == status
    assert code in (None, found.value.code)


def test_a_full_queue_says_when_to_come_again(address: str) -> None:
    async def ask() -> list[Any]:
        async with AsyncOpenAI(base_url=address, api_key="none", max_retries=0) as client:
            asked = [
                client.chat.completions.create(
                    model=BASE, messages=ASKED, max_tokens=60, logit_bias={"65": 100}
                )
                for _ in range(40)
            ]
            return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(ask())
    refused = [error for error in found if isinstance(error, openai.RateLimitError)]
    assert refused
    assert all(error.response.headers["retry-after"] == "2" for error in refused)
    assert len(refused) + sum(not isinstance(x, Exception) for x in found) == 40


def slowed(monkeypatch: pytest.MonkeyPatch) -> set[Engine]:
    """Let each step take 20 ms; the engines that took one."""
    engines: set[Engine] = set()
    step = Engine._step

    def slow(self: Engine) -> None:
        engines.add(self)
        time.sleep(0.02)
        step(self)

    monkeypatch.setattr(Engine, "_step", slow)
    return engines


def test_who_goes_away_is_not_answered_further(
    address: str, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = slowed(monkeypatch)
    endless: dict[str, Any] = {"max_tokens": 200, "logit_bias": {"65": 100}}
    stream = chat(client, stream=True, **endless)
    next(iter(stream))
    stream.close()
    with (
        OpenAI(base_url=address, api_key="x", max_retries=0, timeout=0.3) as hasty,
        pytest.raises(openai.APITimeoutError),
    ):
        chat(hasty, n=4, **endless)
    (engine,) = engines
    deadline = time.monotonic() + 1
    while engine.num_active and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.num_active == 0, "200 steps take 4 seconds"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_breaks_off_is_no_whole_one(
    service: Service, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    slowed(monkeypatch)
    engines = Engines(Runtime.model_validate({"device": "cpu"}))
    with (
        running(service, engines, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none", max_retries=0) as client,
    ):
        chat(client)  # it is loaded
        closing = threading.Timer(0.3, engines.close)
        closing.start()
        with pytest.raises(openai.APIError, match="put away"):  # noqa: PT012 - it comes in pieces
            found = chat(client, max_tokens=100_000, logit_bias={"65": 100}, stream=stream)
            for _ in found if stream else ():
                pass
        closing.join()


def test_a_model_that_only_reads_is_not_asked(
    service: Service, client: OpenAI, tmp_path: Path
) -> None:
    row = service.models.find(tuned_name(service))
    assert row is not None
    with service.database.session() as session:
        session.merge(row).kind = "read"
    with pytest.raises(openai.BadRequestError, match="writes none"):
        chat(client, model=row.id)
    with service.database.session() as session:
        session.merge(row).kind = "write"
