"""The data workbench beside peers: rows to ids, near duplicates, formats; same file, same findings.

    python -m benchmarks.data [tokenise near format] [--repeats 3] [--environments FOLDER]

tokenise: conversations of several datasets become ids with the place where the answer begins, by
Luthier and by datasets' map with transformers' tokenizer, once with nothing kept and once again;
void unless all ids are equal. near: texts of several datasets, some of them planted once more with
one word changed; by Luthier, text-dedup and datasketch; counted is how many of the planted ones
come out, and how many others. format: 250 MB of chats with planted faults, by Luthier and by the
checks that OpenAI's cookbook describes; void unless both name the same lines. Contenders take
turns, each measurement a fresh process.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.environments import python_of
from benchmarks.run import RESULTS
from benchmarks.table import render_data
from benchmarks.workloads import ROOT, model_folder

DATA = Path(os.environ.get("LUTHIER_DATASETS", ROOT.parent / "shared" / "data"))
"""A folder for each dataset."""
Contender = dict[str, Any]
CONTENDERS: dict[str, dict[str, Contender]] = {
    "tokenise": {
        "luthier": {"environment": "luthier", "module": "data_luthier"},
        "datasets.map": {"environment": "trl", "module": "datasets_map", "variant": {}},
        "datasets.map tuned": {
            "environment": "trl", "module": "datasets_map", "variant": {"num_proc": os.cpu_count()},
        },
    },
    "near": {
        "luthier": {"environment": "luthier", "module": "data_luthier"},
        "text-dedup": {"environment": "data", "module": "near_peers", "variant": []},
        "datasketch": {"environment": "data", "module": "near_peers"},
    },
    "format": {
        "luthier": {"environment": "luthier", "module": "data_luthier"},
        "cookbook's checks": {"environment": "luthier", "module": "cookbook"},
    },
}  # fmt: skip
CHATS = ("home-json", "deb-synopsis", "chat-qa", "toolcalls")
TEXTS = ("home-intents", "spam-email", "deb-synopsis", "wordnet-class", "deb-search")
PLANTED, LEAST_LENGTH = 1000, 120
FORMAT_BYTES = 250_000_000
FAULTS: tuple[Callable[[dict[str, Any]], Any], ...] = (
    lambda row: {"messages": []},
    lambda row: {"messages": [{**row["messages"][0], "role": "boss"}, *row["messages"][1:]]},
    lambda row: {"messages": [m for m in row["messages"] if m["role"] != "assistant"]},
    lambda row: {"messages": [{**row["messages"][0], "content": 7}, *row["messages"][1:]]},
    lambda row: {"messages": [{"role": "user"}, *row["messages"][1:]]},
)
"""What is wrong with one line in a thousand."""


def main() -> None:
    """Measure, and store what was measured after each repeat."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--environments", default=str(ROOT / ".benchmarks"))
    arguments = parser.parse_args()
    if unknown := set(arguments.tasks) - set(CONTENDERS):
        parser.error(f"no such task: {', '.join(sorted(unknown))}")
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not there: the rows to be measured are in it")
    environments = Path(arguments.environments).resolve()
    for task in arguments.tasks:
        place = RESULTS / f"data-{task}.json"
        with tempfile.TemporaryDirectory() as folder:
            for found in _compare(task, arguments.repeats, environments, Path(folder)):
                place.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print("\n".join(render_data(found)))


def _compare(task: str, repeats: int, environments: Path, folder: Path) -> Iterator[dict[str, Any]]:
    from luthier.runs import capture_environment

    job = {"tokenise": _conversations, "near": _texts, "format": _faulty}[task](folder)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS[task]}
    about = {k: v for k, v in job.items() if isinstance(v, int | float)}
    for repeat in range(repeats):
        for name, contender in CONTENDERS[task].items():
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                given = {**job, **contender, "task": task, "name": name, "peer": name,
                         "cache": cache}  # fmt: skip
                measured = fresh(given, environments, folder)
                if task == "tokenise":
                    measured["again"] = fresh(given, environments, folder)["seconds"]
            runs[name].append(_judged(task, measured, job))
            print(f"{task} {repeat + 1}: {name}: {runs[name][-1]}", file=sys.stderr, flush=True)
        yield {"data": task, "machine": dict(capture_environment()), "about": about, "runs": runs}


def fresh(job: dict[str, Any], environments: Path, folder: Path) -> dict[str, Any]:
    """What a contender measured in a process of its own."""
    place = folder / "job.json"
    place.write_text(json.dumps(job))
    python = python_of(job["environment"], environments)
    done = subprocess.run(
        [str(python), "-W", "ignore", "-m", f"benchmarks.peers.{job['module']}", str(place)],
        cwd=ROOT, text=True, capture_output=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{job['name']} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _judged(task: str, measured: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a measurement: counts, not everything that was found."""
    if task == "format":
        wrong = measured.pop("wrong")
        return {**measured, "wrong": len(wrong), "right": wrong == job["wrong"]}
    if task == "near":
        groups = measured.pop("groups")
        copies = dict(job["copies"])
        found = sum(groups[copy] == groups[original] for copy, original in copies.items())
        first = {group: number for number, group in reversed([*enumerate(groups)])}
        others = sum(
            first[group] != number for number, group in enumerate(groups) if number not in copies
        )
        return {**measured, "planted": found, "of": len(copies), "others": others}
    return measured


def _conversations(folder: Path) -> dict[str, Any]:
    place = folder / "rows.jsonl"
    rows = [row for name in CHATS for row in _rows(name) if "messages" in row]
    with place.open("w", encoding="utf-8") as file:
        for row in rows:
            kept = {key: row[key] for key in ("messages", "tools") if key in row}
            if kept["messages"][-1]["role"] == "assistant" and "tools" not in kept:
                file.write(json.dumps(kept) + "\n")
    return {"file": str(place), "model": str(model_folder("lora"))}


def _texts(folder: Path) -> dict[str, Any]:
    texts = []
    for name in TEXTS:
        for row in _rows(name):
            said = row.get("text") or row.get("positive") or row["messages"][-2]["content"]
            texts.append(" ".join(said.casefold().split()))
    texts = [*dict.fromkeys(texts)]
    draw = random.Random(0)
    long = [i for i, text in enumerate(texts) if LEAST_LENGTH <= len(text) < 2000]
    copies = []
    for original in draw.sample(long, PLANTED):
        words = texts[original].split()
        words[draw.randrange(len(words))] = "otherwise"
        copies.append((len(texts), original))
        texts.append(" ".join(words))
    place = folder / "texts.jsonl"
    place.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return {"file": str(place), "copies": copies, "threshold": 0.8, "rows": len(texts)}


def _faulty(folder: Path) -> dict[str, Any]:
    rows = [json.dumps(row) for row in _rows("home-json") + _rows("deb-synopsis")]
    place, written, number = folder / "chats.jsonl", 0, 0
    wrong: list[int] = []
    with place.open("w", encoding="utf-8") as file:
        while written < FORMAT_BYTES:
            line = rows[number % len(rows)]
            number += 1
            if number % 1000 == 0:
                line = json.dumps(FAULTS[len(wrong) % len(FAULTS)](json.loads(line)))
                wrong.append(number)
            written += file.write(line + "\n")
    return {"file": str(place), "wrong": wrong, "rows": number, "bytes": written}


def _rows(name: str) -> list[dict[str, Any]]:
    with (DATA / name / "train.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


if __name__ == "__main__":
    main()
