"""Batches: a file of requests becomes a file of answers, once each, whoever dies meanwhile."""

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from running import running

from luthier.pipeline import Engines
from luthier.recipe import Runtime
from luthier.server import clerk
from own_service import Service

pytestmark = pytest.mark.enable_socket
BASE = "tiny/tiny-model"
OVER = ("completed", "failed", "cancelled", "expired")


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    found = Engines(Runtime.model_validate({"device": "cpu"}), slots=4)
    yield found
    found.close()


@pytest.fixture
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service(tmp_path_factory.mktemp("service"))


@pytest.fixture
def client(service: Service, engines: Engines) -> Iterator[OpenAI]:
    with (
        running(service, engines, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none", max_retries=0) as asking,
    ):
        yield asking


def request(number: int, **more: Any) -> dict[str, Any]:
    body = {"model": BASE, "temperature": 0, "max_tokens": 6,
            "messages": [{"role": "user", "content": f"word {number}"}]}  # fmt: skip
    asked = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions"}
    return {**asked, "body": body, **more}


def upload(client: OpenAI, lines: list[Any]) -> str:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    return client.files.create(
        file=("b.jsonl", io.BytesIO(text.encode())), purpose="batch"
    ).id  # fmt: skip


def begin(client: OpenAI, lines: list[Any], **more: Any) -> Any:
    given: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return client.batches.create(input_file_id=upload(client, lines), **(given | more))


def wait(client: OpenAI, batch_id: str, *statuses: str) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch_id)
        if batch.status in (statuses or OVER):
            return batch
        time.sleep(0.1)
    raise AssertionError(client.batches.retrieve(batch_id))


def done_of(client: OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    assert counts is not None
    return counts.completed


def told(client: OpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_each_request_is_answered_as_by_itself(client: OpenAI) -> None:
    lines = [*(request(i) for i in range(12)), request(12, body={"model": "none", "messages": []})]
    begun = begin(client, lines, metadata={"kind": "test"})
    assert (begun.status, begun.metadata) == ("validating", {"kind": "test"})
    batch = wait(client, begun.id)
    assert batch.status == "completed"
    assert batch.completed_at >= batch.in_progress_at
    assert batch.request_counts.model_dump() == {"total": 13, "completed": 12, "failed": 1}
    answers = told(client, batch.output_file_id)
    assert {line["custom_id"] for line in answers} == {f"row-{i}" for i in range(12)}
    alone: Any = request(3)["body"]
    wanted = client.chat.completions.create(**alone).choices[0].message.content
    (found,) = (line for line in answers if line["custom_id"] == "row-3")
    assert found["response"]["status_code"] == 200
    assert found["response"]["body"]["choices"][0]["message"]["content"] == wanted
    (failed,) = told(client, batch.error_file_id)
    assert failed["custom_id"] == "row-12"
    assert failed["response"]["status_code"] == 400
    assert [one.id for one in client.batches.list(limit=1)] == [batch.id]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{broken", "invalid_json_line"),
        ("[1]", "invalid_json_line"),
        (request(1, custom_id=""), "missing_required_parameter"),
        (request(1, method="GET"), "invalid_method"),
        (request(1, url="/v1/files"), "mismatched_endpoint"),
        (request(1, url="/v1/embeddings"), "mismatched_endpoint"),
        (request(1, body="x"), "missing_required_parameter"),
        (request(0), "duplicate_custom_id"),
    ],
)
def test_a_file_with_a_wrong_line_is_refused(client: OpenAI, line: Any, code: str) -> None:
    batch = wait(client, begin(client, [request(0), line]).id)
    assert batch.status == "failed"
    (fault,) = batch.errors.data
    assert (fault.code, fault.line) == (code, 2)


def test_what_is_no_batch_is_refused_at_once(client: OpenAI, service: Service) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.batches.create(
            input_file_id=service.upload([{"x": 1}]), endpoint="/v1/chat/completions",
            completion_window="24h",
        )  # fmt: skip
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")
    assert wait(client, begin(client, ["", "  "]).id).errors.data[0].code == "empty_file"


def test_a_cancelled_batch_keeps_its_answers(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clerk, "BEAT", 0.05)
    lines = [request(i) | {"body": {**request(i)["body"], "max_tokens": 300}} for i in range(200)]
    batch = begin(client, lines)
    deadline = time.monotonic() + 60
    while done_of(client, batch.id) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = wait(client, batch.id)
    assert batch.status == "cancelled"
    assert batch.cancelled_at
    assert 3 <= batch.request_counts.completed < 200
    assert len(told(client, batch.output_file_id)) == batch.request_counts.completed
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.batches.cancel(batch.id)


def test_another_server_goes_on_where_one_stopped(service: Service, engines: Engines) -> None:
    lines = [request(i) for i in range(60)]
    with (
        running(service, engines, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none") as client,
    ):
        batch = begin(client, lines)
        deadline = time.monotonic() + 60
        while done_of(client, batch.id) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    done = service.errands.counts(batch.id)["pass"]
    with (
        running(service, engines, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none") as client,
    ):
        batch = wait(client, batch.id)
        assert batch.request_counts.completed == 60
        assert done < 60
        names = [line["custom_id"] for line in told(client, batch.output_file_id)]
    assert sorted(names) == sorted(line["custom_id"] for line in lines)
