"""Workers: a job becomes a model, whatever happens to those who work on it."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luthier.jobs import Worker
from luthier.jobs.process import GRACE
from luthier.jobs.tables import JobRow
from own_service import Service, chats, work_until


def test_a_job_becomes_a_model(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job = service.create(service.upload(chats(60)))
    worker = service.worker()
    done = work_until(service, worker, job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model == f"ft:tiny:local:test:{job.id[-8:]}"
    assert done.hyperparameters["n_epochs"] == 2
    assert done.hyperparameters["batch_size"] == 8
    assert done.trained_tokens
    assert "held-out rows" in done.evaluation["verdict"]
    said = service.messages(job.id)
    steps = max(int(text.split("/")[0][5:]) for text in said if text.startswith("Step "))
    order = [
        "Created fine-tuning job", "Validating training file", "Files validated",
        "Fine-tuning job started", f"Step 1/{steps}: training loss=",
        "Checkpoint created at step 5", f"Step {steps}/{steps}: training loss=",
        "New fine-tuned model created: ft:tiny:local:test:", "The job has successfully completed",
    ]  # fmt: skip
    places = [next(i for i, text in enumerate(said) if text.startswith(p)) for p in order]
    assert places == sorted(places)
    results = service.files.find(done.result_files["list"][0])
    assert results is not None
    with service.files.open(results) as file:
        rows = list(csv.DictReader(file.read().decode().splitlines()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, steps + 1)]
    assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
    checkpoints, _ = service.jobs.checkpoints(job.id, None, 10)
    assert [c.step for c in checkpoints] == sorted({5, 10, steps}, reverse=True)
    assert checkpoints[0].metrics["train_loss"]


def test_rows_that_are_wrong_fail_the_job_with_their_line(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job = service.create(service.upload([*chats(20), {"messages": []}]))
    done = work_until(service, service.worker(), job.id, "failed")
    assert done.error is not None
    assert done.error["code"] == "invalid_training_file"
    assert f"{done.training_file}:21 messages is an empty list" in done.error["message"]
    assert str(tmp_path) not in done.error["message"]
    assert done.finished_at
    assert "Fine-tuning job started" not in service.messages(job.id)


def wait_for(service: Service, worker: Worker, job_id: str, words: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        worker.turn()
        if any(text.startswith(words) for text in service.messages(job_id)):
            return
        time.sleep(0.1)
    raise AssertionError(service.messages(job_id))


def long_job(service: Service) -> JobRow:
    """A job of some hundred steps."""
    return service.create(
        service.upload(chats(60)), hyperparameters={"n_epochs": 50, "batch_size": 8}
    )


def process_of(worker: Worker, job_id: str) -> int:
    process = worker._attendants[job_id].process
    assert process is not None
    return process.pid


def steps(service: Service, job_id: str) -> list[int]:
    return [data["step"] for data in service.jobs.metrics(job_id)]


def test_a_job_is_paused_and_resumed(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job, worker = long_job(service), service.worker()
    wait_for(service, worker, job.id, "Checkpoint created at step 5")
    service.jobs.move(job.id, "paused", "The job was paused")
    work_until(service, worker, job.id, "paused")
    told = len(steps(service, job.id))
    time.sleep(2)
    worker.turn()
    assert len(steps(service, job.id)) == told, "it stands still"
    service.jobs.move(job.id, "queued", "The job was resumed")
    done = work_until(service, worker, job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    found = steps(service, job.id)
    assert found == list(range(1, len(found) + 1)), "each step once"
    worker.stop()


def test_a_cancelled_job_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job, worker = long_job(service), service.worker()
    wait_for(service, worker, job.id, "Checkpoint created at step 5")
    pid = process_of(worker, job.id)
    service.jobs.move(job.id, "cancelled", "The job was cancelled")
    work_until(service, worker, job.id, "cancelled")
    worker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    newest = service.jobs.checkpoints(job.id, None, 1)[0][0]
    assert newest.step >= 5
    made = service.model_row(newest.model)
    assert (tmp_path / "storage" / made.place / "trained.safetensors").is_file()


def test_a_job_that_is_killed_is_taken_up_again(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job, worker = long_job(service), service.worker()
    wait_for(service, worker, job.id, "Checkpoint created at step 5")
    os.kill(process_of(worker, job.id), signal.SIGKILL)
    wait_for(service, worker, job.id, "The job's process was killed")
    done = work_until(service, worker, job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    found = steps(service, job.id)
    assert found == list(range(1, len(found) + 1))
    worker.stop()


def test_a_job_that_dies_again_and_again_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(tmp_path)
    job = service.create(service.upload(chats(20)))
    (tmp_path / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), 9)")
    worker = service.worker()
    worker.environment = {"PYTHONPATH": str(tmp_path)}
    done = work_until(service, worker, job.id, "failed")
    assert done.error is not None
    assert "3 times without getting further" in done.error["message"]
    assert done.error["code"] == "server_error"


def test_another_worker_takes_over_from_one_that_was_killed(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job = long_job(service)
    program = Path(__file__).with_name("worker_process.py")
    killed = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path), "", "30"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    other = service.worker(lease=GRACE + 2)
    while not service.jobs.checkpoints(job.id, None, 1)[0]:
        time.sleep(0.2)
    other.turn()
    killed.kill()
    killed.wait()
    assert service.job(job.id).worker not in ("", other.name), "nobody knows yet"
    done = work_until(service, other, job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    found = steps(service, job.id)
    assert found == list(range(1, len(found) + 1))


def test_a_worker_that_is_stopped_leaves_the_job_to_others(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job, first = long_job(service), service.worker()
    wait_for(service, first, job.id, "Checkpoint created at step 5")
    first.stop()
    left = service.job(job.id)
    assert (left.status, left.worker) == ("running", "")
    done = work_until(service, service.worker(), job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
