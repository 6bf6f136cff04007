"""LLaMA-Factory: SFT with LoRA on a tokenised dataset, by its own entry point."""

from typing import Any

from datasets import Dataset, DatasetDict
from llamafactory.train.tuner import run_exp

from benchmarks.measuring import Job, Trained, read_job, report
from benchmarks.peers.trainers import Watch, is_bfloat16_faster, shared_settings

PLAIN = {"disable_gradient_checkpointing": True, "bf16": True}


def variants(task: str, batch_size: int) -> dict[str, dict[str, Any]]:
    """Settings tried; the fastest is "tuned". It refuses weights in bfloat16 on a CPU."""
    precision = PLAIN if is_bfloat16_faster() else {**PLAIN, "bf16": False}
    name = "no checkpointing" if precision["bf16"] else "no checkpointing, float32"
    found = {name: {**precision, **_rows_at_once(batch_size, batch_size)}}
    if batch_size > 1:
        found[f"{name}, two by two"] = {**precision, **_rows_at_once(2, batch_size)}
        found[f"{name}, one by one"] = {**precision, **_rows_at_once(1, batch_size)}
    return found


def _rows_at_once(rows: int, batch_size: int) -> dict[str, int]:
    return {
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": batch_size // rows,
    }


def main() -> None:
    """Train, and report."""
    job = read_job()
    report(job, _train(job), ("llamafactory", "transformers", "peft"))


def _train(job: Job) -> Trained:
    data = str(job.scratch / "tokenised")
    rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in job.rows]
    empty = [[] for _ in rows]
    train = Dataset.from_list(rows)
    for column in ("images", "videos", "audios"):
        train = train.add_column(column, empty)
    DatasetDict({"train": train}).save_to_disk(data)
    watch = Watch(job, job.batch_size)
    settings = {
        **shared_settings(job),
        # As its examples have it: bfloat16, activations computed again, rows one by one.
        **_rows_at_once(1, job.batch_size), "bf16": True,
        "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_target": "all", "lora_rank": job.rank, "lora_alpha": job.alpha, "lora_dropout": 0.0,
        "model_name_or_path": job.model, "template": "default",
        "tokenized_path": data, "dataset": "tokenised", "disable_shuffling": True,
        "overwrite_output_dir": True, **job.variant,
    }  # fmt: skip
    run_exp(settings, callbacks=[watch])
    return watch.trained()


if __name__ == "__main__":
    main()
