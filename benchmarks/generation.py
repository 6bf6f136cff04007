"""Answers written beside transformers' own generate, in batches of the same size, token for token.

    python -m benchmarks.generation [zero-shot four-shot] [--rows 64] [--batch 16] [--repeats 3]

SmolLM2 answers the held-out rows of a folder, by default those of the smart-home example, greedily,
asked alone or after four solved examples. Both get the same ids, the same limit and the same end;
transformers' batches are padded on the left and sorted by length, so that it pads least. Contenders
take turns, each measurement a fresh process, without the time to load. How many answers are equal
is told: in float32 a few may part where two tokens are equally likely but for rounding.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.data import fresh
from benchmarks.run import RESULTS
from benchmarks.workloads import ROOT, model_folder

SHOTS = {"zero-shot": 0, "four-shot": 4}
CONTENDERS = {
    "luthier": {"environment": "luthier", "module": "generate_luthier"},
    "transformers": {"environment": "luthier", "module": "generate_transformers"},
}
EXAMPLE = ROOT / "examples" / "smart-home"


def main() -> None:
    """Measure, and store what was measured after each repeat."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=list(SHOTS))
    parser.add_argument("--data", type=Path, default=EXAMPLE)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    if unknown := set(given.tasks) - set(SHOTS):
        parser.error(f"no such task: {', '.join(sorted(unknown))}")
    for task in given.tasks:
        with tempfile.TemporaryDirectory() as folder:
            job = _job(SHOTS[task], given)
            found = _compare(f"{given.data.name}, {task}", job, given.repeats, Path(folder))
        place = RESULTS / f"generation-{given.data.name}-{task}.json"
        place.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(_line(found))


def _job(num_shots: int, given: argparse.Namespace) -> dict[str, Any]:
    from luthier.data import as_chat, read_dataset
    from luthier.evaluation import choose_shots, with_shots
    from luthier.recipe import Data
    from luthier.tokens import Tokenizer, encode_prompt

    folder = model_folder("lora")
    tokenizer = Tokenizer.load(folder)
    rows = read_dataset(
        Data(train=given.data / "train.jsonl", test=given.data / "test.jsonl", validation_share=0)
    ).dataset
    shots = choose_shots(rows.train, num_shots, 0)
    chats = [with_shots(as_chat(example), shots) for example in rows.test[: given.rows]]
    prompts = [encode_prompt(tokenizer, chat.prompt, chat.tools) for chat in chats]
    return {
        "model": str(folder), "prompts": [list(prompt) for prompt in prompts],
        "stop_ids": sorted(tokenizer.stop_ids), "batch": given.batch, "tokens": given.tokens,
    }  # fmt: skip


def _compare(task: str, job: dict[str, Any], repeats: int, folder: Path) -> dict[str, Any]:
    from luthier.runs import capture_environment

    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for repeat in range(repeats):
        answers = {}
        for name, contender in CONTENDERS.items():
            measured = fresh({**job, **contender, "name": name}, ROOT, folder)
            answers[name] = measured.pop("answers")
            measured["tokens"] = sum(map(len, answers[name]))
            runs[name].append(measured)
            print(f"{task} {repeat + 1}: {name}: {measured}", file=sys.stderr, flush=True)
        equal = [a == b for a, b in zip(*answers.values(), strict=True)]
        runs["luthier"][-1]["equal"] = sum(equal)
    lengths = [len(prompt) for prompt in job["prompts"]]
    about = {"rows": len(lengths), "batch": job["batch"], "limit": job["tokens"],
             "prompt_tokens": statistics.median(lengths)}  # fmt: skip
    return {"task": task, "machine": dict(capture_environment()), "about": about, "runs": runs}


def _line(found: dict[str, Any]) -> str:
    ours, theirs = found["runs"]["luthier"], found["runs"]["transformers"]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    about = found["about"]
    return (
        f"| {found['task']} | {about['prompt_tokens']:g} | {about['batch']} | "
        f"{statistics.median(r['tokens'] / r['seconds'] for r in ours):.0f} | "
        f"{statistics.median(r['tokens'] / r['seconds'] for r in theirs):.0f} | "
        f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{ours[0]['equal']} of {about['rows']} |"
    )


if __name__ == "__main__":
    main()
