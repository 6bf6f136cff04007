"""Jobs on a Ray cluster: told, stopped and taken up again as those of this machine."""

import csv
from pathlib import Path

import pytest
from test_worker import long_job, steps, wait_for

from luthier.errors import ConfigError
from luthier.jobs import Storage, Worker
from own_service import Service, work_until

pytest.importorskip("ray", reason="the extra luthier[ray] is missing")
pytestmark = pytest.mark.enable_socket


def test_a_job_on_a_cluster_is_paused_and_resumed(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job, worker = long_job(service), service.worker(ray="local", ray_workers=1)
    wait_for(service, worker, job.id, "Checkpoint created at step 5")
    service.jobs.move(job.id, "paused", "The job was paused")
    work_until(service, worker, job.id, "paused")
    service.jobs.move(job.id, "queued", "The job was resumed")
    done = work_until(service, worker, job.id, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    found = steps(service, job.id)
    assert found == list(range(1, len(found) + 1)), "each step once"
    assert done.evaluation["verdict"]
    results = service.files.find(done.result_files["list"][0])
    assert results is not None
    with service.files.open(results) as file:
        rows = list(csv.DictReader(file.read().decode().splitlines()))
    assert len(rows) == len(found)
    newest = service.jobs.checkpoints(job.id, None, 1)[0][0]
    place = service.model_row(newest.model).place
    assert (tmp_path / "storage" / place / "trained.safetensors").is_file()
    worker.stop()


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    service = Service(tmp_path)
    job, worker = long_job(service), service.worker(ray="127.0.0.1:1")
    done = work_until(service, worker, job.id, "succeeded", "failed")
    assert done.status == "failed"
    assert "no Ray cluster can be reached" in str(done.error)


def test_nodes_must_see_what_is_stored(tmp_path: Path) -> None:
    service = Service(tmp_path)
    away = Storage("memory://away", tmp_path / "scratch")
    with pytest.raises(ConfigError, match="which all nodes see"):
        Worker(service.jobs, service.files, away, ray="auto")
