"""Supervised fine-tuning beside TRL + PEFT: same rows, masks, steps and start; speed and memory.

    python -m benchmarks.sft [--repeats 5] [--steps 10] [--workloads a b c]

On each workload every TRL variant is first tried once; the fastest is "TRL tuned". Then Luthier,
TRL as shipped and TRL tuned take turns, each measurement a fresh process. All must come to the same
losses, or the comparison is void. Timed is training alone, from the first batch to the last update,
tokenising and loading apart. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.contenders import TRL_VARIANTS, run
from benchmarks.workloads import (
    BATCH_SIZE,
    HELD_OUT,
    ROOT,
    SYNOPSIS,
    WORKLOADS,
    model_folder,
    rows_of,
    write_rows,
)

TOLERANCE = 0.05
"""Largest difference of losses between contenders, in nats: one computes in mixed precision."""
SEARCH_STEPS = 3
"""Steps of the trial that chooses TRL's fastest variant."""

Measurement = dict[str, Any]


def main() -> None:
    """Run all contenders on all workloads, and print and store the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--workloads", nargs="*", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--worker", nargs=3, metavar=("CONTENDER", "FOLDER", "MODEL"))
    arguments = parser.parse_args()
    if arguments.worker:
        contender, folder, model = arguments.worker
        print(json.dumps(measure(contender, Path(folder), Path(model))))
        return
    settings = {"repeats": arguments.repeats, "steps": arguments.steps, "batch_size": BATCH_SIZE}
    results: dict[str, Any] = {"machine": machine(), "settings": settings, "workloads": {}}
    model_at = model_folder()
    for workload in arguments.workloads:
        rows = rows_of(workload)
        if rows is None:
            print(f"({workload}) skipped: {SYNOPSIS} is not there")
            continue
        done = compare(workload, rows, model_at, arguments.steps, arguments.repeats)
        results["workloads"][workload] = done
        report(workload, done)
        place = ROOT / "benchmarks" / "results" / "sft.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(results, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    from luthier.runs import capture_environment

    facts: dict[str, Any] = dict(capture_environment())
    facts["packages"] = {**facts["packages"], "trl": metadata.version("trl")}
    return facts


def compare(
    workload: str, rows: list[dict[str, Any]], model: Path, steps: int, repeats: int
) -> dict[str, Any]:
    """Find TRL's fastest variant, then measure in turns."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder, model, rows, workload, min(SEARCH_STEPS, steps))
        search = {}
        for variant in TRL_VARIANTS:
            search[variant] = fresh(f"trl: {variant}", folder, model)
            print(f"  tried {variant}: {search[variant].get('seconds')}", file=sys.stderr)
        tuned = min(search, key=lambda variant: search[variant].get("seconds", float("inf")))
        write_rows(folder, model, rows, workload, steps)
        contenders = {"luthier": "luthier", "trl": "trl", "trl tuned": f"trl: {tuned}"}
        runs: dict[str, list[Measurement]] = {name: [] for name in contenders}
        for _ in range(repeats):
            for name, contender in contenders.items():
                measured = fresh(contender, folder, model)
                if "failed" in measured:
                    raise SystemExit(f"{contender} failed:\n{measured['failed']}")
                runs[name].append(measured)
                print(f"  {name:10} {measured['seconds']:8.2f} s", file=sys.stderr, flush=True)
    return {"search": search, "tuned": tuned, "runs": runs}


def fresh(contender: str, folder: Path, model: Path) -> Measurement:
    """One measurement in a process of its own; {"failed": its last words} when it fails."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.sft", "--worker", contender,
         str(folder), str(model)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return {"failed": done.stderr[-1500:]}
    measured: Measurement = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(contender: str, folder: Path, model: Path) -> Measurement:
    """Train in this process; seconds, losses, held-out loss and peak memory."""
    import torch

    rows = json.loads((folder / "rows.json").read_text())
    train, held_out = rows[:-HELD_OUT], rows[-HELD_OUT:]
    torch.manual_seed(0)
    network, seconds, losses = run(contender, train, model, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "losses": losses[:10],
        "held_out": plain_loss(network, held_out),
        "tokens": sum(len(row["input_ids"]) for row in train),
        "supervised": sum(label != -100 for row in train for label in row["labels"]),
        "peak_bytes": peak,
    }


def plain_loss(network: Any, rows: list[dict[str, Any]]) -> float:
    """Mean loss over supervised tokens, row by row, by transformers alone."""
    import torch
    from torch.nn import functional

    total, count = 0.0, 0
    network.eval()
    with torch.no_grad():
        for row in rows:
            logits = network(input_ids=torch.tensor([row["input_ids"]])).logits[0].float()
            labels = torch.tensor(row["labels"])
            total += functional.cross_entropy(logits[:-1], labels[1:], reduction="sum").item()
            count += int((labels[1:] != -100).sum())
    return total / count


def report(workload: str, done: dict[str, Any]) -> None:
    """Print one workload's tables: the search, the measurements, and whether losses agree."""
    print(f"\n({workload}) {WORKLOADS[workload]}")
    for variant, measured in done["search"].items():
        said = f"{measured['seconds']:.1f} s" if "seconds" in measured else "failed"
        print(f"  tried: TRL, {variant}: {said}{' (chosen)' * (variant == done['tuned'])}")
    print("  contender  supervised tok/s    tok/s (min-max)    peak GiB  held-out loss")
    runs: dict[str, list[Measurement]] = done["runs"]
    for name, measured_runs in runs.items():
        speeds = [m["tokens"] / m["seconds"] for m in measured_runs]
        supervised = statistics.median(m["supervised"] / m["seconds"] for m in measured_runs)
        memory = statistics.median(m["peak_bytes"] for m in measured_runs) / 2**30
        print(
            f"  {name:10} {supervised:16.1f} {statistics.median(speeds):8.1f} "
            f"({min(speeds):.0f}-{max(speeds):.0f}) {memory:11.2f} "
            f"{measured_runs[0]['held_out']:14.4f}"
        )
    for name, measured_runs in runs.items():
        losses = " ".join(f"{loss:.3f}" for loss in measured_runs[0]["losses"])
        print(f"  losses of the first steps, {name}: {losses}")
    ours = runs["luthier"]
    for peer in ("trl", "trl tuned"):
        print(f"  {_ratio(ours, runs[peer])} {peer}; {_agreement(ours[0], runs[peer][0])}")


def _ratio(ours: list[Measurement], theirs: list[Measurement]) -> str:
    """How many times our speed is theirs: median and range over repeats."""
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"


def _agreement(ours: Measurement, theirs: Measurement) -> str:
    """Whether two measurements did the same work."""
    pairs = [*zip(ours["losses"], theirs["losses"], strict=True)]
    gap = max(abs(a - b) for a, b in [*pairs, (ours["held_out"], theirs["held_out"])])
    verdict = "losses agree" if gap <= TOLERANCE else "VOID: losses differ"
    return f"{verdict} (largest difference {gap:.3f})"


if __name__ == "__main__":
    main()
