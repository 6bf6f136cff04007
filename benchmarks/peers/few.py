"""SetFit on a few rows of each class, as its documentation has it."""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from setfit import SetFitModel, Trainer, TrainingArguments


def main() -> None:
    """Train, ask, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(2)
    model = SetFitModel.from_pretrained(job["model"])
    trainer = Trainer(
        model=model,
        args=TrainingArguments(report_to="none", show_progress_bar=False, **job["variant"]),
        train_dataset=Dataset.from_list(job["train"]),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    given = model.predict([row["text"] for row in job["test"]])
    right = sum(a == row["label"] for a, row in zip(given, job["test"], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": seconds, "right": right, "of": len(job["test"]), "peak_bytes": peak}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
