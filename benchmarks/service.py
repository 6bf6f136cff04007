"""A server with much in its database: lists, a large upload, and doing nothing.

    python -m benchmarks.service [--jobs 10000] [--events 100] [--megabytes 512] [--database URL]

A fresh database gets so many jobs with so many events each. A server in a process of its own then
lists jobs and events from beginnings and from the middle, over HTTP on one connection; takes a
file; and is left alone, with its worker, for a while. Memory is the server process's own, as Linux
counts what is resident; the processor's time is that of server and worker.
"""

import argparse
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from benchmarks.run import RESULTS
from luthier.jobs import Service, new_id
from luthier.jobs.tables import EventRow, JobRow

ASKED = 400
"""Lists of each kind."""
IDLE = 30.0
"""Seconds that a server is left alone."""
START = 60.0


def main() -> None:
    """Measure, store and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--database", default="")
    given = parser.parse_args()
    from luthier.runs import capture_environment

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = _fill(folder, given.database, given.jobs, given.events)
        process, address = _serve(folder, given.database)
        try:
            found: dict[str, Any] = {
                "machine": dict(capture_environment()), "jobs": given.jobs,
                "events": given.jobs * given.events, "lists": _lists(address, jobs),
                "upload": _upload(process.pid, address, folder, given.megabytes),
                "idle": _idle(process.pid),
            }  # fmt: skip
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    kind = "postgresql" if given.database.startswith("postgresql") else "sqlite"
    (RESULTS / f"service-{kind}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({key: found[key] for key in ("lists", "upload", "idle")}, indent=1))


def _fill(folder: Path, database: str, jobs: int, events: int) -> list[str]:
    """Jobs and events of all; the jobs' ids."""
    service = Service.at(folder, database, "")
    now = service.jobs.now()
    ids = [new_id("ftjob-") for _ in range(jobs)]
    empty: dict[str, Any] = {"list": []}

    def job_rows() -> Iterator[dict[str, Any]]:
        for number, job in enumerate(ids):
            yield {
                "id": job, "created_at": now + number, "status": "succeeded", "model": "tiny",
                "training_file": new_id("file-"), "validation_file": None, "suffix": None,
                "seed": number, "method": {"type": "supervised"}, "hyperparameters": {},
                "integrations": empty, "meta": {}, "settings": {}, "error": None,
                "fine_tuned_model": f"ft:tiny:local::{job[-8:]}", "trained_tokens": 1000,
                "result_files": empty, "evaluation": {}, "estimated_finish": None,
                "finished_at": now + number, "request_hash": job,
            }  # fmt: skip

    def event_rows() -> Iterator[dict[str, Any]]:
        for number, job in enumerate(ids):
            for step in range(events):
                yield {
                    "id": new_id("ftevent-"), "created_at": now + number + step, "job_id": job,
                    "mark": f"step-{step}", "level": "info", "type": "metrics",
                    "message": f"Step {step}/{events}: training loss=0.25",
                    "data": {"step": step, "train_loss": 0.25, "total_steps": events},
                }  # fmt: skip

    for table, rows in ((JobRow, job_rows()), (EventRow, event_rows())):
        while part := list(itertools.islice(rows, 5000)):
            service.database.transact(_inserting(table, part), patience=60.0)
        print(f"{table.__tablename__} are there", file=sys.stderr, flush=True)
    return ids


def _inserting(table: type, rows: list[dict[str, Any]]) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        session.execute(insert(table), rows)

    return work


def _serve(folder: Path, database: str) -> tuple["subprocess.Popen[bytes]", str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "luthier.cli", "serve", "--no-key", "--port", str(port),
             "--workspace", str(folder)],
            stdout=log, stderr=log, env={**os.environ, "LUTHIER_DATABASE": database},
        )  # fmt: skip
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}/v1"
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {(folder / 'log').read_text()[-2000:]}")


def _lists(address: str, jobs: list[str]) -> dict[str, dict[str, float]]:
    """What is asked -> milliseconds until it was answered."""
    import httpx

    chance, found = random.Random(1), {}
    base = f"{address}/fine_tuning/jobs"
    with httpx.Client(timeout=60) as client:

        def events_after(job: str) -> str:
            first = client.get(f"{base}/{job}/events", params={"limit": 50}).json()["data"]
            return str(first[-1]["id"])

        deep = [(job, events_after(job)) for job in chance.sample(jobs, 20)]
        asked: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {
            "newest jobs": lambda: ("", {"limit": 20}),
            "jobs from the middle": lambda: ("", {"limit": 100, "after": chance.choice(jobs)}),
            "a job": lambda: (f"/{chance.choice(jobs)}", {}),
            "newest events": lambda: (f"/{chance.choice(jobs)}/events", {"limit": 100}),
            "events from the middle": lambda: (
                (one := chance.choice(deep)) and (f"/{one[0]}/events", {"after": one[1]})
            ),
        }
        for name, ask in asked.items():
            times = []
            for _ in range(ASKED):
                path, params = ask()
                began = time.perf_counter()
                client.get(base + path, params=params).raise_for_status()
                times.append(1e3 * (time.perf_counter() - began))
            times.sort()
            found[name] = {"median": statistics.median(times), "p95": times[int(0.95 * ASKED)]}
    return found


def _upload(pid: int, address: str, folder: Path, megabytes: int) -> dict[str, float]:
    """Send a file of so many MiB: MiB more than before at the highest, and seconds."""
    import httpx

    row = json.dumps({"messages": [{"role": "user", "content": "x" * 900},
                                   {"role": "assistant", "content": "y" * 90}]}) + "\n"  # fmt: skip
    file = folder / "large.jsonl"
    with file.open("w") as out:
        out.writelines(row for _ in range(megabytes * 2**20 // len(row)))
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the highest mark is what it is now
    before, began = _status(pid, "VmRSS"), time.perf_counter()
    with httpx.Client(timeout=600) as client, file.open("rb") as content:
        answer = client.post(
            f"{address}/files", files={"file": ("large.jsonl", content)},
            data={"purpose": "fine-tune"},
        )  # fmt: skip
    answer.raise_for_status()
    return {"more_mib": _status(pid, "VmHWM") - before, "before_mib": before,
            "seconds": time.perf_counter() - began}  # fmt: skip


def _status(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def _idle(pid: int) -> dict[str, float]:
    """Share of a core that server and worker use while there is nothing to do."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    pids = {"server": pid, **{f"child {i + 1}": int(child) for i, child in enumerate(children)}}
    before = {name: _ticks(one) for name, one in pids.items()}
    time.sleep(IDLE)
    hertz = os.sysconf("SC_CLK_TCK")
    return {name: (_ticks(one) - before[name]) / hertz / IDLE for name, one in pids.items()}


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    main()
