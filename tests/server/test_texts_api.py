"""Vectors and labels of texts: of base models, and of what jobs made."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from running import running, working

from luthier.pipeline import Readers, open_embed
from luthier.recipe import Runtime
from own_service import Service
from tiny_encoders import write_encoder

pytestmark = pytest.mark.enable_socket
EVALUATION = {"resamples": 200}
TRAINING = {"batch_size": 8, "max_length": 32}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    return Service(tmp_path_factory.mktemp("service"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def address(service: Service, encoder: Path) -> Iterator[str]:
    readers = Readers(Runtime.model_validate({"device": "cpu"}))
    more = {"tiny/encoder": encoder}
    with running(service, readers=readers, more=more, needs_key=False) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=address, api_key="none", max_retries=0) as asking:
        yield asking


def tuned(client: OpenAI, service: Service, rows: list[dict[str, Any]], task: str) -> str:
    file_id = service.upload(rows)
    job = client.fine_tuning.jobs.create(
        training_file=file_id, model="tiny/encoder", hyperparameters={"n_epochs": 3},
        extra_body={"task": task, "recipe": {"training": TRAINING, "evaluation": EVALUATION}},
    )  # fmt: skip
    with working(service):
        while job.status not in ("succeeded", "failed"):
            job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.fine_tuned_model, job.error
    return job.fine_tuned_model


def test_vectors_are_the_models(client: OpenAI, encoder: Path) -> None:
    texts = ["one text", "another", "ab"]
    wanted = open_embed(str(encoder))(texts)
    for form in ("float", "base64", openai.omit):
        found = client.embeddings.create(
            model="tiny/encoder", input=texts, encoding_format=form,
        )  # fmt: skip
        vectors = [one.embedding for one in found.data]
        if form == "base64":
            vectors = [np.frombuffer(base64.b64decode(v), "<f4") for v in vectors]  # type: ignore[arg-type, misc]
        assert np.allclose(vectors, wanted, atol=1e-5)
    assert [one.index for one in found.data] == [0, 1, 2]
    assert found.usage.prompt_tokens > 3
    (alone,) = client.embeddings.create(model="tiny/encoder", input="another").data
    assert np.allclose(alone.embedding, wanted[1], atol=1e-5)
    (short,) = client.embeddings.create(model="tiny/encoder", input="another", dimensions=4).data
    assert np.allclose(short.embedding, wanted[1][:4] / np.linalg.norm(wanted[1][:4]), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"input": ""}, 400),
        ({"input": []}, 400),
        ({"input": ["a"] * 3000}, 400),
        ({"input": [["a"]]}, 400),
        ({"dimensions": 10_000}, 400),
        ({"model": "nothing"}, 404),
    ],
)
def test_what_has_no_vector_is_refused(
    client: OpenAI, changes: dict[str, Any], status: int
) -> None:
    given = {"model": "tiny/encoder", "input": "text", **changes}
    with pytest.raises(openai.APIStatusError) as found:
        client.embeddings.create(**given)
    assert found.value.status_code == status


def test_a_job_makes_a_classifier(client: OpenAI, service: Service, address: str) -> None:
    rows = [{"text": f"{word} {i}", "label": word} for i in range(40) for word in ("good", "bad")]
    name = tuned(client, service, rows, "classification")
    asked = {"model": name, "input": ["good 3", "bad 7"]}
    answer = httpx.post(f"{address}/classify", json=asked)
    assert answer.status_code == 200, answer.text
    found = answer.json()["data"]
    assert [one["labels"] for one in found] == [["good"], ["bad"]]
    assert all(abs(sum(one["probabilities"].values()) - 1) < 1e-5 for one in found)
    assert set(found[0]["probabilities"]) == {"good", "bad"}
    with pytest.raises(openai.BadRequestError, match="gives labels"):
        client.embeddings.create(model=name, input="good")
    refused = httpx.post(f"{address}/classify", json={"model": "tiny/encoder", "input": "good"})
    assert refused.status_code == 400
    assert "gives vectors" in refused.text
    with pytest.raises(openai.BadRequestError, match="writes none"):
        client.completions.create(model=name, prompt="good")


def test_a_job_makes_a_model_of_vectors(client: OpenAI, service: Service) -> None:
    rows = [{"query": f"what is {i}", "passage": f"it is {i}"} for i in range(40)]
    name = tuned(client, service, rows, "embedding")
    found = client.embeddings.create(
        model=name, input=["what is 3", "it is 3"], extra_body={"input_type": "passage"}
    )
    first, second = (np.array(one.embedding) for one in found.data)
    assert first.shape == second.shape
    assert np.isfinite(first).all()
