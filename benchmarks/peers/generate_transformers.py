"""transformers' own generate on given ids, in batches of like length, padded on the left."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from benchmarks.measuring import peak_bytes


def main() -> None:
    """Answer all prompts, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    model: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    model.eval()
    prompts, stops = job["prompts"], job["stop_ids"]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    started = time.perf_counter()
    for start in range(0, len(order), job["batch"]):
        rows = order[start : start + job["batch"]]
        longest = max(len(prompts[i]) for i in rows)
        ids = torch.full((len(rows), longest), stops[0])
        mask = torch.zeros_like(ids)
        for at, i in enumerate(rows):
            ids[at, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[at, longest - len(prompts[i]) :] = 1
        with torch.inference_mode():
            found = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=job["tokens"], do_sample=False,
                eos_token_id=stops, pad_token_id=stops[0],
            )[:, longest:].tolist()  # fmt: skip
        for i, answer in zip(rows, found, strict=True):
            end = next((at for at, token in enumerate(answer) if token in stops), len(answer))
            answers[i] = answer[:end]
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "answers": answers, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
