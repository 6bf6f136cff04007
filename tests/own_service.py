"""A service of a test: its database, storage and a worker, on a tiny model."""

import json
import time
from pathlib import Path
from typing import Any

from sqlalchemy import select

from luthier import jobs
from luthier.jobs import Storage, Worker, open_database
from luthier.jobs.tables import JobRow, ModelRow
from tiny import write_model

QUICK = {
    "training": {"batch_size": 8, "checkpoint_every": 5, "max_length": 128},
    "evaluation": {"shots": [], "nearest": 0, "max_new_tokens": 8, "general": "none",
                   "resamples": 200, "metrics": ["exact", "loss"]},
}  # fmt: skip
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class Service(jobs.Service):
    """What servers and workers share, and what tests do with it."""

    def __init__(self, folder: Path, url: str = "") -> None:
        storage = Storage(str(folder / "storage"), folder / "scratch")
        super().__init__(open_database(url, folder), storage)
        self.folder = folder

    def worker(self, **settings: Any) -> Worker:
        return Worker(self.jobs, self.files, self.storage, environment=THREADS, **settings)

    def upload(self, rows: list[dict[str, Any]]) -> str:
        return self.files.add_text(
            "".join(f"{json.dumps(row)}\n" for row in rows), "rows.jsonl", "fine-tune"
        ).id

    def model(self) -> Path:
        place = self.folder / "tiny"
        return place if place.exists() else write_model(place)

    def create(self, training_file: str, *, is_repeated: bool = False, **changes: Any) -> JobRow:
        job: dict[str, Any] = {
            "status": "validating_files", "model": "tiny", "source": str(self.model()),
            "training_file": training_file, "validation_file": None, "suffix": "test", "seed": 1,
            "method": {"type": "supervised"}, "hyperparameters": {"n_epochs": 2}, "meta": {},
            "integrations": {"list": []}, "settings": {"recipe": QUICK}, "error": None,
            "fine_tuned_model": None, "trained_tokens": None, "result_files": {"list": []},
            "evaluation": {}, "estimated_finish": None, "finished_at": None,
            "request_hash": "x", "asked_by": "",
        }  # fmt: skip
        return self.jobs.create(JobRow(**(job | changes)), is_repeated=is_repeated)

    def job(self, job_id: str) -> JobRow:
        found = self.jobs.find(job_id)
        assert found is not None
        return found

    def model_row(self, name: str) -> ModelRow:
        found = self.database.transact(
            lambda s: s.scalar(select(ModelRow).where(ModelRow.id == name)), patience=1
        )
        assert found is not None
        return found

    def messages(self, job_id: str) -> list[str]:
        """Of the job's events, oldest first."""
        events, has_more = self.jobs.events(job_id, None, 10_000)
        assert not has_more
        return [event.message for event in reversed(events)]


def chats(count: int, answer: str = "yes") -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"word {i}"},
                      {"role": "assistant", "content": answer}]}
        for i in range(count)
    ]  # fmt: skip


def work_until(service: Service, worker: Worker, job_id: str, *statuses: str) -> JobRow:
    """Let the worker work until the job is in one of the states and out of its hands."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        worker.turn()
        job = service.job(job_id)
        if job.status in statuses and (not job.worker or job.status == "running"):
            return job
        time.sleep(0.2)
    raise AssertionError(f"{job_id} is {service.job(job_id).status}: {service.messages(job_id)}")
