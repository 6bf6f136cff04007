"""OpenAI's own client, unchanged but for the address, against a server with a worker."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from running import running, working

from own_service import QUICK, Service, chats

pytestmark = pytest.mark.enable_socket


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with (
        running(service, needs_key=False) as address,
        OpenAI(base_url=address, api_key="none", max_retries=0) as asking,
    ):
        yield asking


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def upload(client: OpenAI, count: int = 60) -> str:
    return client.files.create(file=("rows.jsonl", lines(chats(count))), purpose="fine-tune").id


def test_a_file_goes_in_and_out(client: OpenAI) -> None:
    content = lines(chats(30))
    made = client.files.create(
        file=("../../etc/rows.jsonl", content), purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )  # fmt: skip
    assert made.filename == "../../etc/rows.jsonl", "a word, and no path"
    assert (made.bytes, made.purpose, made.status) == (len(content), "fine-tune", "processed")
    assert made.expires_at == made.created_at + 3600
    assert made.luthier["rows"] == 30  # type: ignore[attr-defined]
    assert client.files.wait_for_processing(made.id).status == "processed"
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == content
    deleted = client.files.delete(made.id)
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError) as found:
        client.files.retrieve(made.id)
    assert found.value.code == "not_found"
    assert found.value.request_id
    assert found.value.request_id.startswith("req_")


def test_files_are_listed_newest_first_in_pages(client: OpenAI) -> None:
    ids = [upload(client, 3) for _ in range(5)]
    other = client.files.create(file=("a.txt", b"words"), purpose="user_data")
    assert [file.id for file in client.files.list()] == [other.id, *reversed(ids)]
    listed = client.files.list(purpose="fine-tune", limit=2)
    assert listed.has_more
    assert [file.id for file in listed] == list(reversed(ids))
    assert [file.id for file in client.files.list(order="asc", purpose="fine-tune")] == ids


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\x00\xff\xfe", "rows.jsonl"),
        (b"this is no JSON\n", "rows.jsonl:1"),
        (b'{"messages": []}\n', "rows.jsonl:1"),
        (b'{"neither": 1}\n', "rows.jsonl"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused(
    client: OpenAI, service: Service, content: bytes, says: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as found:
        client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    assert (found.value.code, found.value.param) == ("invalid_file_format", "file")
    assert str(service.folder) not in str(found.value)
    assert not list((service.folder / "scratch" / "incoming").iterdir())


def test_faults_of_some_rows_are_told_in_the_file(client: OpenAI) -> None:
    content = lines(chats(3)) + b'{"messages": [{"role": "wizard", "content": "x"}]}\n'
    made = client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    report = made.luthier  # type: ignore[attr-defined]
    assert report["num_faults"] >= 1
    assert report["faults"][0].startswith("rows.jsonl:4")


def test_a_large_file_comes_in_parts(client: OpenAI, tmp_path: Path) -> None:
    content = lines(chats(500))
    place = tmp_path / "rows.jsonl"
    place.write_bytes(content)
    done = client.uploads.upload_file_chunked(
        file=place, mime_type="text/jsonl", purpose="fine-tune", part_size=10_000
    )
    assert done.status == "completed"
    assert done.file is not None
    assert client.files.content(done.file.id).read() == content
    with pytest.raises(openai.BadRequestError, match="completed"):
        client.uploads.cancel(done.id)


def test_parts_must_be_what_was_announced(client: OpenAI) -> None:
    made = client.uploads.create(
        bytes=6, filename="a.txt", mime_type="text/plain", purpose="user_data"
    )
    parts = [client.uploads.parts.create(made.id, data=data).id for data in (b"abc", b"def")]
    with pytest.raises(openai.BadRequestError, match="3 bytes"):
        client.uploads.complete(made.id, part_ids=parts[:1])
    with pytest.raises(openai.BadRequestError, match="no part"):
        client.uploads.complete(made.id, part_ids=[parts[0], "part_unknown"])
    with pytest.raises(openai.BadRequestError, match="MD5"):
        client.uploads.complete(made.id, part_ids=parts, md5="0" * 32)
    with pytest.raises(openai.BadRequestError, match="larger"):
        client.uploads.parts.create(made.id, data=b"more")
    digest = hashlib.md5(b"defabc", usedforsecurity=False).hexdigest()
    done = client.uploads.complete(made.id, part_ids=list(reversed(parts)), md5=digest)
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"defabc"
    gone = client.uploads.create(
        bytes=6, filename="a.txt", mime_type="text/plain", purpose="user_data"
    )
    assert client.uploads.cancel(gone.id).status == "cancelled"


def wait(client: OpenAI, job_id: str, *statuses: str) -> Any:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        time.sleep(0.2)
    raise AssertionError(job)


def test_the_stock_script_makes_a_model(client: OpenAI, service: Service) -> None:
    with working(service):
        file_id = upload(client)
        job = client.fine_tuning.jobs.create(
            training_file=file_id, model="tiny/tiny-model", suffix="mine", seed=7,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            metadata={"team": "blue"}, extra_body={"recipe": QUICK, "lora_rank": 4},
        )  # fmt: skip
        assert job.status == "validating_files"
        assert (job.fine_tuned_model, job.result_files, job.seed) == (None, [], 7)
        assert job.hyperparameters.batch_size == "auto"
        assert job.method is not None
        assert job.method.supervised is not None
        assert job.method.supervised.hyperparameters is not None
        assert job.method.supervised.hyperparameters.lora_rank == 4  # type: ignore[attr-defined]
        done = wait(client, job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model == f"ft:tiny-model:local:mine:{job.id[-8:]}"
    assert (done.hyperparameters.n_epochs, done.hyperparameters.batch_size) == (2, 8)
    assert done.trained_tokens > 0
    assert "held-out rows" in done.luthier["evaluation"]["verdict"]
    table = client.files.content(done.result_files[0]).text
    assert table.startswith("step,train_loss,")

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=3))
    assert len({event.id for event in events}) == len(events)
    said = [event.message for event in reversed(events)]
    assert said[0].startswith("Created fine-tuning job")
    assert said[-1] == "The job has successfully completed"
    measured = [event for event in events if event.type == "metrics"]
    steps_told: list[Any] = [event.data["step"] for event in measured if event.data]  # type: ignore[index]
    assert steps_told[0] > steps_told[-1], "newest first"

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    steps = [checkpoint.step_number for checkpoint in checkpoints]
    assert steps == sorted(steps, reverse=True)
    name = checkpoints[0].fine_tuned_model_checkpoint
    assert name == f"{done.fine_tuned_model}:ckpt-step-{steps[0]}"

    models = {model.id for model in client.models.list()}
    assert {"tiny/tiny-model", done.fine_tuned_model, name} <= models
    assert client.models.retrieve("tiny/tiny-model").owned_by == "org-local"
    assert client.models.retrieve(done.fine_tuned_model).job_id == job.id  # type: ignore[attr-defined]

    allowed = client.fine_tuning.checkpoints.permissions.create(name, project_ids=["a", "b"])
    assert [permission.project_id for permission in allowed] == ["a", "b"]
    listed = client.fine_tuning.checkpoints.permissions.list(name)
    assert [permission.project_id for permission in listed] == ["b", "a"]
    permission_id = next(iter(allowed)).id
    gone = client.fine_tuning.checkpoints.permissions.delete(
        permission_id, fine_tuned_model_checkpoint=name
    )
    assert gone.deleted

    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError) as found:
        client.models.retrieve(name)
    assert found.value.code == "model_not_found"


def create(client: OpenAI, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "training_file": upload(client, 12), "model": "tiny-model",
        "extra_body": {"recipe": QUICK},
    }  # fmt: skip
    return client.fine_tuning.jobs.create(**(given | changes))


def test_jobs_are_found_by_metadata_in_pages(client: OpenAI) -> None:
    file_id = upload(client, 12)
    jobs = [
        create(client, training_file=file_id, metadata={"n": str(n % 2), "all": "x"}).id
        for n in range(5)
    ]
    without = create(client, training_file=file_id).id
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == [without, *reversed(jobs)]
    odd = client.fine_tuning.jobs.list(metadata={"n": "1", "all": "x"})
    assert [job.id for job in odd] == [jobs[3], jobs[1]]
    none = client.fine_tuning.jobs.list(extra_query={"metadata": "null"})
    assert [job.id for job in none] == [without]


def test_a_job_is_paused_resumed_and_cancelled(client: OpenAI) -> None:
    job = create(client)
    paused: Any = client.fine_tuning.jobs.pause(job.id)
    assert paused.status == "paused", "which OpenAI's types do not know"
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at
    for move in ("cancel", "pause", "resume"):
        with pytest.raises(openai.BadRequestError, match="cancelled"):
            getattr(client.fine_tuning.jobs, move)(job.id)


def test_a_repeated_request_makes_no_second_job(client: OpenAI) -> None:
    file_id = upload(client, 12)
    first = create(client, training_file=file_id, seed=1)
    again = create(
        client, training_file=file_id, seed=1, extra_headers={"x-stainless-retry-count": "1"}
    )
    assert again.id == first.id
    assert create(client, training_file=file_id, seed=1).id != first.id, "asked for anew"


def recipe(value: Any) -> dict[str, Any]:
    return {"extra_body": {"recipe": value}}


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"model": "gpt-nowhere"}, openai.NotFoundError, "model"),
        ({"model": "../../etc/passwd"}, openai.NotFoundError, "model"),
        ({"training_file": "file-none"}, openai.BadRequestError, "training_file"),
        ({"validation_file": "file-none"}, openai.BadRequestError, "validation_file"),
        ({"method": {"type": "reinforcement"}}, openai.BadRequestError, "method.type"),
        ({"method": {"type": "magic"}}, openai.BadRequestError, "method.type"),
        ({"hyperparameters": {"n_epochs": 0}}, openai.BadRequestError, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "two"}}, openai.BadRequestError, "hyperparameters"),
        ({"extra_body": {"lora_rank": "; rm -rf /"}}, openai.BadRequestError, "hyperparameters"),
        ({"suffix": "x" * 65}, openai.BadRequestError, "suffix"),
        ({"seed": -1}, openai.BadRequestError, "seed"),
        ({"metadata": {"x" * 65: "y"}}, openai.BadRequestError, "metadata"),
        ({"metadata": {str(n): "y" for n in range(17)}}, openai.BadRequestError, "metadata"),
        (recipe({"model": {"source": "/etc"}}), openai.BadRequestError, "recipe"),
        (recipe({"data": {"train": "/etc"}}), openai.BadRequestError, "recipe"),
        (recipe([]), openai.BadRequestError, "recipe"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_job_is_refused(
    client: OpenAI, changes: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as found:
        create(client, **changes)
    assert found.value.param is not None
    assert found.value.param.startswith(param)
    assert found.value.message
    assert not list(client.fine_tuning.jobs.list())
