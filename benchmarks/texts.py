"""Texts beside peers where work cannot be made equal step by step: few rows, and vectors of many.

    python -m benchmarks.texts [few encode] [--repeats 3] [--environments FOLDER]

few: SetFit and Luthier learn from the same 16 mails of each class; what counts is the time of
training and the accuracy on the same held-out mails. encode: sentence-transformers and Luthier turn
the same texts of mixed length into vectors, from strings to arrays; the least cosine of a vector
with its counterpart is stored, and the comparison is void below 0.999. Contenders take turns, each
measurement a fresh process. "tuned" is one other setting of the peer that should be faster (see
`CONTENDERS`); no search is made for more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import python_of
from benchmarks.run import KEEPS_MEMORY, RESULTS
from benchmarks.table import render_texts
from benchmarks.text_rows import FILES
from benchmarks.workloads import ROOT, model_folder

PER_CLASS = 16
NUM_TEXTS = 4000
CONTENDERS: dict[str, dict[str, dict[str, Any]]] = {
    "few": {"luthier": {}, "setfit": {}, "setfit tuned": {"sampling_strategy": "unique"}},
    "encode": {
        "luthier": {}, "sentence-transformers": {},
        "sentence-transformers tuned": {"batch_size": 128},
    },
}  # fmt: skip


def main() -> None:
    """Measure, and store what was measured after each repeat."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--environments", default=str(ROOT / ".benchmarks"))
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - set(CONTENDERS):
        parser.error(f"no such task: {', '.join(sorted(unknown))}")
    environments = Path(arguments.environments).resolve()
    for task in arguments.tasks:
        RESULTS.mkdir(exist_ok=True)
        place = RESULTS / f"texts-{task}.json"
        with tempfile.TemporaryDirectory() as folder:
            for found in _compare(task, arguments.repeats, environments, Path(folder)):
                place.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(f"written: {place}", file=sys.stderr, flush=True)
        print("\n".join(render_texts(found)))


def _compare(task: str, repeats: int, environments: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Measure all in turns: what is known after each repeat."""
    from luthier.runs import capture_environment

    job = {"model": str(model_folder("embed")), **(_few() if task == "few" else _texts())}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS[task]}
    for repeat in range(repeats):
        for name, variant in CONTENDERS[task].items():
            place = folder / "job.json"
            vectors = folder / f"{name}.npy".replace(" ", "-")
            place.write_text(json.dumps({**job, "variant": variant, "vectors": str(vectors)}))
            is_ours = name == "luthier"
            python = python_of("luthier" if is_ours else "sentence", environments)
            module = f"benchmarks.peers.{task}{'_luthier' if is_ours else ''}"
            done = subprocess.run(
                [str(python), "-W", "ignore", "-m", module, str(place)], cwd=ROOT, text=True,
                capture_output=True, check=False,
                env={**os.environ, **(KEEPS_MEMORY if variant else {})},
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
            measured = json.loads(done.stdout.splitlines()[-1])
            if task == "encode" and not is_ours:
                measured["cosine"] = _least_cosine(folder / "luthier.npy", vectors)
            runs[name].append(measured)
            print(f"{task} {repeat + 1}: {name}: {measured}", file=sys.stderr, flush=True)
        yield {"task": task, "machine": dict(capture_environment()), "runs": runs}


def _few() -> dict[str, Any]:
    """The first mails of each class, and all held-out ones."""
    kept: dict[str, list[dict[str, str]]] = {}
    for line in FILES["m"].open(encoding="utf-8"):
        row = json.loads(line)
        if len(kept.setdefault(row["label"], [])) < PER_CLASS:
            kept[row["label"]].append({"text": row["text"], "label": row["label"]})
    test = [json.loads(line) for line in FILES["m"].with_name("test.jsonl").open(encoding="utf-8")]
    return {
        "train": [row for rows in kept.values() for row in rows],
        "test": [{"text": row["text"], "label": row["label"]} for row in test],
    }


def _texts() -> dict[str, Any]:
    """Intents' short sentences, mails, and what else is there, in an order that mixes lengths."""
    found = []
    for file in FILES.values():
        if file.is_file():
            rows = [json.loads(line) for line in file.open(encoding="utf-8")]
            found += [row.get("text") or row["positive"] for row in rows]
    order = np.random.default_rng(0).permutation(len(found))[:NUM_TEXTS]
    return {"texts": [found[i] for i in order]}


def _least_cosine(ours: Path, theirs: Path) -> float:
    a, b = np.load(ours), np.load(theirs)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / lengths).min())


if __name__ == "__main__":
    main()
