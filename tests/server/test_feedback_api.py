"""Log to learn: kept only if the owner wants it, masked, by its own client judged, read by data."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from running import running
from typer.testing import CliRunner

from luthier.cli import app
from luthier.pipeline import Engines
from luthier.recipe import Runtime
from own_service import Service

pytestmark = pytest.mark.enable_socket
BASE = "tiny/tiny-model"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


@pytest.fixture
def engines() -> Iterator[Engines]:
    found = Engines(Runtime.model_validate({"device": "cpu"}), slots=4)
    yield found
    found.close()


def chat(client: OpenAI, text: str = "word", **more: Any) -> Any:
    return client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": text}], max_tokens=6, temperature=0,
        **more,
    )  # fmt: skip


def judge(client: OpenAI, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{client.base_url}feedback", json=body,
        headers={"authorization": f"Bearer {client.api_key}"},
    )  # fmt: skip


def exported(service: Service, kind: str) -> list[dict[str, Any]]:
    file = service.folder / f"{kind}.jsonl"
    told = CliRunner().invoke(
        app, ["captures", "export", str(file), "--kind", kind, "--workspace", str(service.folder)]
    )
    assert told.exit_code == 0, told.output
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_nothing_is_kept_unless_the_owner_wants_it(service: Service, engines: Engines) -> None:
    with (
        running(service, engines, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none") as client,
    ):
        found = chat(client)
        assert judge(client, id=found.id, rating="up").status_code == 400
    assert list(service.captures.all()) == []


def test_what_is_kept_is_masked_judged_and_read_as_rows(service: Service, engines: Engines) -> None:
    with (
        running(service, engines, needs_key=False, capture_days=1.0) as address,
        OpenAI(base_url=address, api_key="none") as client,
    ):
        first = chat(client, "Write to jane.doe@posteo.net")
        second = chat(client, "word 2", store=False)
        third = next(iter(chat(client, "word 3", stream=True)))
        given = {"id": first.id, "rating": "down", "correction": "Call +49 30 901820 first."}
        assert judge(client, **given).status_code == 200
        assert judge(client, id=third.id, rating="up").json()["rating"] == "up"
        assert judge(client, id=second.id, rating="up").status_code == 404
        assert judge(client, id=first.id).status_code == 400
    kept = list(service.captures.all())
    assert [row.id for row in kept] == [first.id, third.id]
    assert "jane" not in json.dumps(kept[0].request)
    assert "901820" not in str(kept[0].feedback)
    (pair,) = exported(service, "preferences")
    assert pair["non_preferred_output"][0]["content"] == first.choices[0].message.content
    assert [row["label"] for row in exported(service, "ratings")] == ["down", "up"]
    assert [row["id"] for row in exported(service, "candidates")] == [first.id, third.id]


def test_only_its_own_client_judges_an_answer(service: Service, engines: Engines) -> None:
    _, mine = service.keys.create("mine", ["infer"])
    _, other = service.keys.create("other", ["infer"])
    with (
        running(service, engines, capture_days=1.0) as address,
        OpenAI(base_url=address, api_key=mine) as client,
        OpenAI(base_url=address, api_key=other) as stranger,
    ):
        found = chat(client)
        assert judge(stranger, id=found.id, rating="up").status_code == 404
        assert judge(client, id=found.id, rating="up").status_code == 200


def test_what_is_old_is_forgotten(service: Service) -> None:
    service.captures.keep("chatcmpl-1", BASE, "", {"messages": []}, {"choices": []})
    assert service.captures.forget(1) == 0
    assert service.captures.forget(-1) == 1
