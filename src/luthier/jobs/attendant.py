"""Looks after one job's process: hears what it tells, beats, ends it when nobody wants it."""

import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luthier.errors import StorageError
from luthier.jobs.files import Files
from luthier.jobs.hearing import Hearing
from luthier.jobs.orders import without_paths
from luthier.jobs.process import Order
from luthier.jobs.queue import Hold, Jobs, LostHoldError
from luthier.jobs.tables import JobRow
from luthier.runs import Mirror

BEAT = 1.0
"""Seconds between two beats."""

PATIENCE_TO_SAVE = 120.0
"""Seconds a process has to save in, when a job is paused or cancelled."""

MAX_CRASHES = 3
"""Times in a row that a process may die without getting further."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What an attendant works with."""

    jobs: Jobs
    files: Files
    workspace: Path
    """The job's own folder on this machine."""
    mirror: Mirror | None
    """Where the folder is copied to, for workers that share no disk."""
    environment: dict[str, str]


class Attendant(threading.Thread):
    """One job in a worker's hands, from its start until the process is gone."""

    def __init__(self, job: JobRow, hold: Hold, order: Order, desk: Desk) -> None:
        super().__init__(name=job.id, daemon=True)
        self.job, self.hold, self._order, self._desk = job, hold, order, desk
        self._hearing = Hearing(job)
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._last: dict[str, Any] = {}
        self._stopping = threading.Event()
        self._asked_at = 0.0
        self.process: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        """Save and let go of the job, for another worker to take up."""
        self._stopping.set()

    def run(self) -> None:
        """Attend until the process has ended and everything it told is noted."""
        try:
            self.process = self._start()
            self._attend(self.process)
            self._patiently(self._conclude)
        except LostHoldError:
            pass  # another worker has it; what we know is no longer asked for
        finally:
            self._end()

    def _start(self) -> "subprocess.Popen[str]":
        self._desk.workspace.mkdir(parents=True, exist_ok=True)
        if self._desk.mirror is not None:
            self._desk.mirror.pull()
        log = (self._desk.workspace / "process.log").open("a", encoding="utf-8")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "luthier.jobs.process"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                encoding="utf-8", env={**os.environ, **self._desk.environment},
                start_new_session=True,
            )  # fmt: skip
        assert process.stdin is not None, "it is a pipe"
        process.stdin.write(json.dumps(asdict(self._order)) + "\n")
        process.stdin.flush()
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                continue  # cut short by its death

    def _attend(self, process: "subprocess.Popen[str]") -> None:
        while True:
            is_over = process.poll() is not None
            self._drain(0.2 if is_over else BEAT)
            try:
                self._note()
                status = self._desk.jobs.beat(self.hold)
            except StorageError:
                continue  # the database is away; the work goes on, and is noted later
            if is_over and self._lines.empty():
                return
            if status != "running" or self._stopping.is_set():
                self._ask_to_end(process)

    def _drain(self, seconds: float) -> None:
        """Take what has been told, for so long at most."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                return
            self._last = line
            self._hearing.hear(line)

    def _note(self) -> None:
        """Write down what was heard."""
        jobs, heard = self._desk.jobs, self._hearing
        if heard.checkpoints and self._desk.mirror is not None and heard.run_id:
            self._desk.mirror.push(heard.run_id)
        if heard.events:
            jobs.tell(self.hold, heard.events)
            heard.events = []
        for step, model, metrics in heard.checkpoints:
            jobs.add_checkpoint(self.hold, step, model, metrics)
            jobs.change(self.hold, crashes=0)
        heard.checkpoints = []
        if heard.seconds_left is not None:
            heard.changes["estimated_finish"] = jobs.now() + math.ceil(heard.seconds_left)
            heard.seconds_left = None
        if heard.changes:
            jobs.change(self.hold, **heard.changes)
            heard.changes = {}

    def _ask_to_end(self, process: "subprocess.Popen[str]") -> None:
        if not self._asked_at:
            self._asked_at = time.monotonic()
            process.terminate()
        elif time.monotonic() - self._asked_at > PATIENCE_TO_SAVE:
            process.kill()

    def _patiently(self, work: Callable[[], None]) -> None:
        """Do it as soon as the database lets us."""
        while True:
            try:
                return work()
            except StorageError:
                time.sleep(BEAT)

    def _conclude(self) -> None:
        """Note how it ended, and let go."""
        self._hearing.flush()
        self._note()
        kind, jobs = self._last.get("kind"), self._desk.jobs
        if kind == "finished":
            self._succeed()
        elif kind == "failed":
            self._fail(without_paths(self._last["found"], self._order), self._last["error"])
        elif kind != "interrupted" and not self._asked_at:
            self._crash()
        jobs.release(self.hold)

    def _succeed(self) -> None:
        jobs, run_id = self._desk.jobs, str(self._last["run_id"])
        if self._desk.mirror is not None:
            self._desk.mirror.push(run_id)
        row = self._desk.files.add_text(
            self._hearing.results(jobs.metrics(self.job.id)),
            "step_metrics.csv", "fine-tune-results",
        )  # fmt: skip
        jobs.succeed(
            self.hold, self._hearing.model(run_id, self._last["model"]), row.id, self._last
        )

    def _fail(self, found: str, error: str) -> None:
        param = "training_file" if error in ("DataError", "TemplateError") else None
        code = "invalid_training_file" if param else "server_error"
        self._desk.jobs.change(
            self.hold, "failed", f"The job failed: {found}",
            error={"code": code, "message": found, "param": param},
            finished_at=self._desk.jobs.now(), estimated_finish=None,
        )  # fmt: skip

    def _crash(self) -> None:
        """It died without a word: again, unless it has done so too often."""
        assert self.process is not None, "it has run"
        crashes = self._desk.jobs.crashed(self.hold)
        how = _how_it_died(self.process.returncode)
        if crashes >= MAX_CRASHES:
            log = f"its log: {self._desk.workspace / 'process.log'}"
            self._fail(f"its process {how}, {crashes} times without getting further ({log})", "")
            return
        event = self._hearing.message(
            f"crash-{self.hold.number}", f"The job's process {how}; it is taken up again", "warn"
        )
        self._desk.jobs.tell(self.hold, [event])

    def _end(self) -> None:
        """Leave no process behind."""
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _how_it_died(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, as systems do when memory runs out"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with {code}"
