"""A worker: checks new jobs, takes those that wait, takes over those whose worker is gone.

Any number may run, on any machines that see the database and the storage. Each job runs in a
process of its own (`process.py`), which an attendant looks after.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from luthier.data import read_dataset, refuse_errors
from luthier.errors import ConfigError, LuthierError, StorageError
from luthier.jobs.attendant import Attendant, Desk
from luthier.jobs.files import Files
from luthier.jobs.orders import MADE, order_of, without_paths
from luthier.jobs.process import Order
from luthier.jobs.queue import Hold, Jobs, LostHoldError
from luthier.jobs.storage import Storage
from luthier.jobs.tables import JobRow
from luthier.jobs.watching import Watch
from luthier.recipe import recipe_from
from luthier.runs import Mirror

LEASE = 30.0
"""Seconds without a beat after which a worker is thought dead."""

POLL = 1.0
"""Seconds between two looks for work."""

TIDY = 600.0
"""Seconds between two looks for contents that nobody needs."""


@dataclass
class Worker:
    """Works on jobs until it is told to stop."""

    jobs: Jobs
    files: Files
    storage: Storage
    slots: int = 1
    """Jobs worked on at once, as far as they fit into memory together."""
    memory: int = 0
    """Bytes that they may need together; 0: of what the machine has."""
    ray: str = ""
    """Address of a Ray cluster that does the jobs; empty: this machine."""
    ray_workers: int = 1
    """Of the cluster, for each job."""
    lease: float = LEASE
    environment: Mapping[str, str] = field(default_factory=dict)
    """For the jobs' processes."""
    say: Callable[[str], None] = lambda text: None
    name: str = ""
    _attendants: dict[str, Attendant] = field(default_factory=dict)
    _needed: dict[str, int] = field(default_factory=dict)
    """Job -> bytes it needs, of those in hand."""
    _told: set[str] = field(default_factory=set)
    """Jobs of which it was said that they wait for memory."""
    _watch: Watch = field(init=False)
    _tidied: float = -TIDY

    def __post_init__(self) -> None:
        if self.ray and self.storage.folder is None:
            raise ConfigError(
                "a cluster's nodes read files and runs where they lie", where="--ray",
                accepted="--storage that is a folder which all nodes see at the same place",
            )  # fmt: skip
        self._watch = Watch(self.lease)
        self.name = self.name or f"{socket.gethostname()[:40]}-{os.getpid()}-{uuid4().hex[:8]}"

    def run(self, is_over: Callable[[], bool], pause: Callable[[float], object]) -> None:
        """Work until `is_over`; then jobs save, and others may take them up."""
        is_away = False
        while not is_over():
            try:
                self.turn()
                is_away = False
            except StorageError as error:
                if not is_away:
                    self.say(str(error))
                is_away = True
            pause(POLL)
        self.stop()

    def stop(self) -> None:
        """Let all jobs save, and wait for it."""
        for attendant in self._attendants.values():
            attendant.stop()
        for attendant in self._attendants.values():
            attendant.join()
        self._attendants.clear()

    def turn(self) -> None:
        """Look once for what is to be done. Raises StorageError."""
        for job_id, attendant in list(self._attendants.items()):
            if not attendant.is_alive():
                del self._attendants[job_id]
                self._needed.pop(job_id, None)
                self.say(f"{job_id} is out of hand")
        for job in self.jobs.waiting(["validating_files"]):
            self._check(job)
        if len(self._attendants) < self.slots:
            self._begin_some()
        if time.monotonic() - self._tidied > TIDY:
            self._tidied = time.monotonic()
            self.files.tidy()

    def _begin_some(self) -> None:
        # What was begun and has nobody comes first.
        waiting = [*self.jobs.waiting(["running"]), *self._orphans()]
        for job in [*waiting, *self.jobs.waiting(["queued"])]:
            # None goes ahead of one that waits for memory, or that might wait for ever.
            if len(self._attendants) >= self.slots or not self._fits(job):
                return
            self._begin(job)

    def _fits(self, job: JobRow) -> bool:
        """Whether there is memory for a job beside those in hand; alone it is always tried."""
        if self.slots == 1 or self.ray:  # a cluster looks after its own
            return True
        from luthier.pipeline.needing import memory_for_runs

        most = self.memory or memory_for_runs()
        # Of a model that is not here yet nobody knows how much it needs.
        needed, used = self._need(job) or most, sum(self._needed.values())
        if self._attendants and used + needed > most:
            if job.id not in self._told:
                told = [f"{number / 2**30:.1f}" for number in (needed, used, most)]
                self.say(f"{job.id} needs {told[0]} GiB and waits: {told[1]} of {told[2]} are used")
                self._told.add(job.id)
            return False
        self._needed[job.id] = needed
        self._told.discard(job.id)
        return True

    def _need(self, job: JobRow) -> int:
        """Bytes, about; 0 where nobody can know."""
        from luthier.pipeline.needing import memory_needed

        with suppress(LuthierError):  # what is wrong with it the job says
            return memory_needed(recipe_from(self._order(job).recipe).recipe) or 0
        return 0

    def _orphans(self) -> list[JobRow]:
        """Jobs whose worker has not beaten for so long that it must be dead."""
        dead = self._watch.dead(self.jobs.held())
        return [job for job in dead if job.worker != self.name]

    def _check(self, job: JobRow) -> None:
        """Read a new job's rows, and queue it or say what is wrong."""
        hold = self.jobs.take(job, self.name)
        if hold is None:
            return
        with suppress(LostHoldError):
            order = self._order(job)
            try:
                reading = read_dataset(recipe_from(order.recipe).recipe.data)
                refuse_errors(reading.findings)
            except StorageError:
                raise
            except LuthierError as error:
                found = without_paths(str(error), order)
                wrong = {"code": "invalid_training_file", "message": found,
                         "param": "training_file"}  # fmt: skip
                self.jobs.change(
                    hold, "failed", f"The job failed: {found}",
                    error=wrong, finished_at=self.jobs.now(),
                )  # fmt: skip
            else:
                self.jobs.change(hold, "queued", "Files validated, moving job to queued state")
            finally:
                self.jobs.release(hold)

    def _begin(self, job: JobRow) -> None:
        hold = self.jobs.take(job, self.name)
        if hold is None:
            return
        with suppress(LostHoldError):
            if job.status == "queued" and not self.jobs.change(
                hold, "running", "Fine-tuning job started"
            ):
                self.jobs.release(hold)
                return
            if job.status not in ("queued", "running"):  # its worker died while it was to end
                self.jobs.release(hold)
                return
            self._attend(job, hold)

    def _attend(self, job: JobRow, hold: Hold) -> None:
        folder = self._workspace(job)
        mirror = None
        if self.storage.folder is None:
            mirror = Mirror(f"{self.storage.url}/jobs/{job.id}", folder)
        desk = Desk(self.jobs, self.files, folder, mirror, dict(self.environment))
        attendant = Attendant(job, hold, self._order(job), desk)
        self._attendants[job.id] = attendant
        self.say(f"{job.id} is in hand")
        attendant.start()

    def _workspace(self, job: JobRow) -> Path:
        return (self.storage.folder or self.storage.scratch) / "jobs" / job.id

    def _order(self, job: JobRow) -> Order:
        files = {"train": self.files.local(job.training_file)}
        if job.validation_file:
            files["validation"] = self.files.local(job.validation_file)
        made = None
        if job.source.startswith(MADE):
            place = job.source.removeprefix(MADE)
            made = self.storage.local_folder(place, but="checkpoints")
        order = order_of(job, files, self._workspace(job), made)
        return replace(order, ray=self.ray, ray_workers=self.ray_workers)
