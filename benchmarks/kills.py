"""Servers, workers and jobs are killed at random moments; then everything must still be there.

    python -m benchmarks.kills [--times 100] [--seed 1] [--database URL]

A server and two workers share a service. Clients upload files and make jobs of a tiny model all the
while; each few seconds one of the processes gets SIGKILL and is started anew. In the end every
file must be whole, every job made once and done, its events in order, its model there; no state
may ever have gone backward. Prints a tally, and exits with 1 where anything is amiss.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.run import RESULTS
from benchmarks.workloads import ROOT

GAVE_UP = "3 times without getting further"
LEASE = 4.0
"""Seconds after which a silent worker is thought dead; users have 30."""
PAUSE = (1.0, 8.0)
"""Seconds between two kills."""
RANKS = {"validating_files": 0, "queued": 1, "running": 2, "succeeded": 3, "failed": 3}
WORKER = """
import signal, sys, threading
from pathlib import Path
from luthier.jobs import Service, Worker
service = Service.at(Path(sys.argv[1]), sys.argv[2])
over = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: over.set())
environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
worker = Worker(service.jobs, service.files, service.storage, lease=float(sys.argv[3]),
                environment=environment)
worker.run(over.is_set, over.wait)
"""
RECIPE = {
    "training": {"batch_size": 8, "checkpoint_every": 5, "max_length": 128},
    "evaluation": {"shots": [], "nearest": 0, "max_new_tokens": 8, "general": "none",
                   "resamples": 200, "metrics": ["exact", "loss"]},
}  # fmt: skip


@dataclass
class Scene:
    """The processes, and what clients were told."""

    folder: Path
    database: str
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """Id -> SHA-256 of what was sent."""
    jobs: dict[str, int] = field(default_factory=dict)
    """Id -> highest rank of a state it was seen in."""
    wrong: list[str] = field(default_factory=list)
    kills: dict[str, int] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, name: str) -> None:
        """Start a process, or start it anew."""
        model = self.folder / "tiny"
        if name == "server":
            command = [
                sys.executable, "-m", "luthier.cli", "serve", "--no-key", "--workers", "0",
                "--port", str(self.port), "--workspace", str(self.folder / "service"),
                "--model", f"tiny={model}",
            ]  # fmt: skip
        else:
            arguments = [str(self.folder / "service"), self.database, str(LEASE)]
            command = [sys.executable, "-c", WORKER, *arguments]
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, "LUTHIER_DATABASE": self.database, "SCENE": str(self.folder)},
            )  # fmt: skip

    def kill(self, chance: random.Random) -> None:
        """Kill one of the processes, or a job's."""
        names = ["server", "first worker", "second worker"]
        running = _children(self)
        victim = chance.choice([*names, *(["job"] * 2 if running else [])])
        self.kills[victim] = self.kills.get(victim, 0) + 1
        if victim == "job":
            os.kill(chance.choice(running), signal.SIGKILL)
            return
        process = self.processes[victim]
        process.kill()
        process.wait()
        self.start(victim)


def _children(scene: Scene) -> list[int]:
    """Processes of this scene's jobs."""
    found = subprocess.run(
        ["pgrep", "-f", "luthier.jobs.process"], capture_output=True, text=True, check=False
    )  # fmt: skip
    return [pid for pid in map(int, found.stdout.split()) if _is_of(scene, pid)]


def _is_of(scene: Scene, pid: int) -> bool:
    try:
        return str(scene.folder).encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _clients(scene: Scene, over: threading.Event, chance: random.Random) -> None:
    """Upload files and make jobs until told to stop; what fails is tried again by the client."""
    from openai import OpenAI, OpenAIError

    client = OpenAI(base_url=scene.address, api_key="none", max_retries=8, timeout=20)
    number = 0
    while not over.wait(chance.uniform(0.5, 6)):
        number += 1
        rows = [
            {"messages": [{"role": "user", "content": f"word {i} {number}"},
                          {"role": "assistant", "content": "yes"}]}
            for i in range(40)
        ]  # fmt: skip
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        try:
            file = client.files.create(file=(f"rows-{number}.jsonl", content), purpose="fine-tune")
            scene.files[file.id] = hashlib.sha256(content).hexdigest()
            job = client.fine_tuning.jobs.create(
                model="tiny", training_file=file.id, suffix=f"n{number}",
                hyperparameters={"n_epochs": 2}, extra_body={"recipe": RECIPE, "lora_rank": 4},
            )  # fmt: skip
            scene.jobs.setdefault(job.id, 0)
        except OpenAIError as error:
            scene.kills[f"given up: {type(error).__name__}"] = (
                scene.kills.get(f"given up: {type(error).__name__}", 0) + 1
            )


def _look(scene: Scene, over: threading.Event) -> None:
    """Watch all states: none may go backward."""
    from openai import OpenAI, OpenAIError

    client = OpenAI(base_url=scene.address, api_key="none", max_retries=0, timeout=20)
    while not over.wait(0.5):
        try:
            for job in client.fine_tuning.jobs.list(limit=100):
                _see(scene, job)
        except OpenAIError:
            continue


def _see(scene: Scene, job: Any) -> None:
    rank = RANKS[job.status]
    if rank < scene.jobs.get(job.id, 0):
        scene.wrong.append(f"{job.id} went back to {job.status}")
    scene.jobs[job.id] = max(rank, scene.jobs.get(job.id, 0))


def _check(scene: Scene) -> dict[str, Any]:
    """Whether everything is there."""
    from openai import OpenAI

    # The last kill may have been the server's, which takes a while to start.
    client = OpenAI(base_url=scene.address, api_key="none", max_retries=40)
    deadline = time.monotonic() + 1200
    jobs: list[Any] = []
    while time.monotonic() < deadline:
        jobs = list(client.fine_tuning.jobs.list(limit=100))
        if all(job.status in ("succeeded", "failed") for job in jobs):
            break
        time.sleep(1)
    for file_id, digest in scene.files.items():
        content = client.files.content(file_id).read()
        if hashlib.sha256(content).hexdigest() != digest:
            scene.wrong.append(f"{file_id} is not what was sent")
    scene.wrong += [f"{job_id} is lost" for job_id in set(scene.jobs) - {job.id for job in jobs}]
    suffixes = [job.user_provided_suffix for job in jobs]
    scene.wrong += [f"{s} was made twice" for s in set(suffixes) if suffixes.count(s) > 1]
    models = {model.id for model in client.models.list()}
    for job in jobs:
        _check_job(scene, client, job, models)
    states = [job.status for job in jobs]
    return {
        "kills": dict(sorted(scene.kills.items())), "files": len(scene.files), "jobs": len(jobs),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "wrong": scene.wrong,
    }  # fmt: skip


def _check_job(scene: Scene, client: Any, job: Any, models: set[str]) -> None:
    if job.error and GAVE_UP in job.error.message and scene.kills["job"] >= 3:
        return  # three kills in a row, of this one: so it is meant
    if job.status != "succeeded":
        scene.wrong.append(f"{job.id} is {job.status}: {job.error}")
        return
    if job.fine_tuned_model not in models:
        scene.wrong.append(f"{job.fine_tuned_model} is lost")
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    if sorted(steps, reverse=True) != steps or len(set(steps)) < len(steps):
        scene.wrong.append(f"{job.id} tells steps {steps}")
    if steps and len(steps) != events[0].data.get("total_steps", steps[0]):
        scene.wrong.append(f"{job.id} lacks steps: {steps}")
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "word 1"}], max_tokens=4
    )
    if answer.choices[0].finish_reason not in ("stop", "length"):
        scene.wrong.append(f"{job.fine_tuned_model} does not answer")


def main() -> None:
    """Kill, check, and store the tally."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import write_model

    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        scene = Scene(Path(folder), given.database, free.getsockname()[1])
        free.close()
        write_model(scene.folder / "tiny")
        found = _run(scene, given.times, chance)
    found = {"times": given.times, "seed": given.seed, **found}
    name = "postgresql" if given.database else "sqlite"
    (RESULTS / f"kills-{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    raise SystemExit(bool(found["wrong"]))


def _run(scene: Scene, times: int, chance: random.Random) -> dict[str, Any]:
    for name in ("server", "first worker", "second worker"):
        scene.start(name)
    over = threading.Event()
    threads = [
        threading.Thread(target=_clients, args=(scene, over, random.Random(chance.random()))),
        threading.Thread(target=_look, args=(scene, over)),
    ]
    for thread in threads:
        thread.start()
    try:
        for number in range(times):
            time.sleep(chance.uniform(*PAUSE))
            scene.kill(chance)
            print(f"{number + 1} of {times}: {scene.kills}", file=sys.stderr, flush=True)
        over.set()
        for thread in threads:
            thread.join()
        return _check(scene)
    finally:
        over.set()
        for process in scene.processes.values():
            process.terminate()
        for process in scene.processes.values():
            process.wait()


if __name__ == "__main__":
    main()
