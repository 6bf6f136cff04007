"""Train beside peers: same rows, masks, order, steps and start; speed and memory.

    python -m benchmarks.run [lora full dpo classify embed] [--workloads a b ...] [--peers trl ...]
                             [--repeats 5] [--steps 10] [--resume] [--environments FOLDER]

Every peer runs in an environment of its own, made from benchmarks/environments/. On each workload
every setting of a peer (`variants` in benchmarks/peers) is first tried twice for a few steps (a
sixth of all, 2 at least); the fastest is "tuned". Tuned peers keep the memory they free, as Luthier
does; torch.compile is not tried, for ten steps never earn it back on a CPU. Then all take turns,
each measurement a fresh process. A comparison is void where the ids or labels computed on differ,
or a loss does, from Luthier's as timed or as it computes in the other precision. Timed is training
alone, from the first batch to the last update; what the model at the start thinks of DPO's answers
is timed apart. Each workload's results go, after every repeat, to
benchmarks/results/TASK-WORKLOAD-PRECISION.json, by the precision that Luthier chooses on this
machine, the fastest; `python -m benchmarks.table` shows them.
`--resume` goes on with an interrupted comparison of the same code on the same machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.environments import python_of
from benchmarks.workloads import BATCH_SIZE, ROOT, WORKLOADS, model_folder, rows_of

RESULTS = ROOT / "benchmarks" / "results"
PEERS = {
    "lora": ("trl", "trainer", "llamafactory"), "full": ("trl", "litgpt"), "dpo": ("trl",),
    "classify": ("classifier",), "embed": ("sentence",),
}  # fmt: skip
ENVIRONMENT = {"trainer": "trl", "classifier": "sentence"}
"""Peers that share another's environment."""
TASK_WORKLOADS = {"lora": "abcd", "full": "bc", "dpo": "p", "classify": "im", "embed": "s"}
LEARNING_RATE = {"lora": 1e-3, "full": 1e-4, "dpo": 1e-4, "classify": 1e-4, "embed": 1e-4}
SEARCH_STEPS = 2
SEARCH_SHARE = 6
SEARCH_ROUNDS = 2
"""Least steps, share of all steps, and rounds of the trials of a peer's settings."""
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""glibc's settings that Luthier makes for itself."""
REFERENCES: dict[str, dict[str, dict[str, Any]]] = {
    "bfloat16": {
        "in float32": {"dtype": "float32"},
        "rounding as usual": {"rounding": "usual"},
    },
    "float32": {
        "in bfloat16, rounding as usual": {"dtype": "bfloat16", "rounding": "usual"},
    },
}
"""Luthier once more, computing as peers may; by the precision it is timed in."""

Measurement = dict[str, Any]


def main() -> None:
    """Run contenders on workloads, and store what was measured after each."""
    arguments = _arguments()
    environments = Path(arguments.environments).resolve()
    for task in arguments.tasks:
        model = model_folder(task)
        for workload in arguments.workloads or TASK_WORKLOADS[task]:
            if workload not in TASK_WORKLOADS[task]:
                continue
            peers = [p for p in PEERS[task] if not arguments.peers or p in arguments.peers]
            bench = Bench(task, workload, model, environments, arguments.steps)
            if not bench.has_rows:
                print(f"{task} ({workload}) skipped: its rows are not there", file=sys.stderr)
                continue
            RESULTS.mkdir(exist_ok=True)
            place = RESULTS / f"{task}-{workload}-{fastest_precision()}.json"
            begun = bench.begun(place) if arguments.resume else bench.begin(peers)
            for found in bench.compare(begun, arguments.repeats):
                place.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(f"written: {place}", file=sys.stderr, flush=True)


def fastest_precision() -> str:
    """What Luthier computes in on this machine."""
    from luthier.models import probe_devices

    return "bfloat16" if probe_devices().has_fast_bfloat16 else "float32"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(PEERS), help=", ".join(PEERS))
    parser.add_argument("--workloads", nargs="*", choices=WORKLOADS)
    parser.add_argument("--peers", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--environments", default=str(ROOT / ".benchmarks"))
    arguments = parser.parse_args()
    unknown = set(arguments.tasks) - set(PEERS)
    if unknown:
        parser.error(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    return arguments


class Bench:
    """One task on one workload."""

    def __init__(
        self, task: str, workload: str, model: Path, environments: Path, steps: int
    ) -> None:
        self.task, self.workload, self.steps = task, workload, steps
        self.model, self.environments = model, environments
        self.batch_size = BATCH_SIZE[workload]
        self.has_rows = rows_of(workload, model, 1) is not None

    def begin(self, peers: list[str]) -> dict[str, Any]:
        """A comparison without repeats yet: each peer's fastest setting, and the references."""
        variants: dict[str, dict[str, Any]] = {"luthier": {}}
        search: dict[str, dict[str, Measurement]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for peer in peers:
                search[peer] = self._search(peer, Path(folder))
                best = min(search[peer], key=lambda name: _seconds(search[peer][name]))
                variants |= {peer: {}, f"{peer} tuned": self._variants(peer)[best]}
            job = self._job(Path(folder), self.steps)
            precision = fastest_precision()
            # What a contender should come to that rounds otherwise; not timed beside the others.
            references = {
                name: self._fresh("luthier", variant, job)
                for name, variant in REFERENCES[precision].items()
            }
        return {
            "task": self.task, "workload": self.workload, "about": WORKLOADS[self.workload],
            "precision": precision, "machine": _machine(), "batch_size": self.batch_size,
            "steps": self.steps, "variants": variants, "search": search,
            "runs": {name: [] for name in variants}, "references": references,
        }  # fmt: skip

    def begun(self, place: Path) -> dict[str, Any]:
        """An interrupted comparison; SystemExit when it was another's: its numbers do not mix."""
        if not place.is_file():
            raise SystemExit(f"{place} is not there: nothing to resume; leave --resume out")
        found: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        now = {"machine": _machine(), "batch_size": self.batch_size, "steps": self.steps}
        other = [name for name, value in now.items() if found[name] != value]
        if other:
            raise SystemExit(f"{place} has another {', '.join(other)}: measure anew")
        return found

    def compare(self, found: dict[str, Any], repeats: int) -> Iterator[dict[str, Any]]:
        """Measure all in turns until there are so many repeats: what is known after each."""
        runs: dict[str, list[Measurement]] = found["runs"]
        with tempfile.TemporaryDirectory() as folder:
            job = self._job(Path(folder), self.steps)
            for repeat in range(len(runs["luthier"]), repeats):
                for name, variant in found["variants"].items():
                    measured = self._fresh(name.removesuffix(" tuned"), variant, job)
                    runs[name].append(measured)
                    said = f"{measured['seconds']:.1f} s" if "seconds" in measured else "failed"
                    print(f"{self.task} ({self.workload}) {repeat + 1}: {name}: {said}",
                          file=sys.stderr, flush=True)  # fmt: skip
                yield found

    def _search(self, peer: str, folder: Path) -> dict[str, Measurement]:
        """Each setting's better trial of two; they take turns, for a machine has slow minutes."""
        job = self._job(folder, min(self.steps, max(SEARCH_STEPS, self.steps // SEARCH_SHARE)))
        found: dict[str, Measurement] = {}
        for _ in range(SEARCH_ROUNDS):
            for name, variant in self._variants(peer).items():
                trial = self._fresh(peer, variant, job)
                said = trial.get("seconds", trial.get("failed", "")[-300:])
                print(f"  {peer}, {name}: {said}", file=sys.stderr, flush=True)
                found[name] = min(trial, found.get(name, trial), key=_seconds)
        return found

    def _variants(self, peer: str) -> dict[str, dict[str, Any]]:
        """Asked in the peer's environment, whose module cannot be imported here."""
        code = (
            f"import json; from benchmarks.peers.{peer} import variants; "
            f"print(json.dumps(variants({self.task!r}, {self.batch_size})))"
        )
        said = self._in_environment(peer, ["-c", code])
        if said.returncode:
            raise SystemExit(f"{peer} cannot be used:\n{said.stderr[-2000:]}")
        found: dict[str, dict[str, Any]] = json.loads(said.stdout.splitlines()[-1])
        return found

    def _job(self, folder: Path, steps: int) -> dict[str, Any]:
        rows = rows_of(self.workload, self.model, steps)
        assert rows is not None, "looked for before"
        return {
            **rows, "task": self.task, "model": str(self.model), "folder": str(folder),
            "batch_size": self.batch_size, "learning_rate": LEARNING_RATE[self.task],
            "max_grad_norm": 0.0 if self.task == "full" else 1.0,
        }  # fmt: skip

    def _fresh(self, peer: str, variant: dict[str, Any], job: dict[str, Any]) -> Measurement:
        """One measurement in a process of its own; {"failed": its last words} when it fails."""
        place = Path(job["folder"]) / "job.json"
        place.write_text(json.dumps({**job, "variant": variant}), encoding="utf-8")
        settings = KEEPS_MEMORY if variant else {}
        done = self._in_environment(peer, ["-m", f"benchmarks.peers.{peer}", str(place)], settings)
        if done.returncode:
            return {"failed": done.stderr[-1500:]}
        measured: Measurement = json.loads(done.stdout.splitlines()[-1])
        return measured

    def _in_environment(
        self, peer: str, command: list[str], settings: Mapping[str, str] = {}
    ) -> subprocess.CompletedProcess[str]:
        python = python_of(ENVIRONMENT.get(peer, peer), self.environments)
        return subprocess.run(
            [str(python), "-W", "ignore", *command],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **settings},
        )  # fmt: skip


def _seconds(measured: Measurement) -> float:
    return float(measured.get("seconds", float("inf")))


def _machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    from luthier.runs import capture_environment

    return dict(capture_environment())


if __name__ == "__main__":
    main()
