"""Luthier's generation on given ids."""

import json
import sys
import time
from pathlib import Path

import torch

from benchmarks.measuring import peak_bytes
from luthier.models import choose_device, generate, load_model


def main() -> None:
    """Answer all prompts, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    threads = torch.get_num_threads()
    model = load_model(
        Path(job["model"]), dtype=torch.float32, device=choose_device("cpu", threads)
    )
    started = time.perf_counter()
    found = generate(
        model, job["prompts"], max_new_tokens=job["tokens"], stop_ids=set(job["stop_ids"]),
        num_slots=job["batch"],
    )  # fmt: skip
    seconds = time.perf_counter() - started
    answers = [answer.ids for answer in found]
    print(json.dumps({"seconds": seconds, "answers": answers, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
