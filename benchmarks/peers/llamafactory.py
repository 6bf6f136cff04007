"""LLaMA-Factory: SFT with LoRA on a tokenised dataset, by its own entry point."""

from typing import Any

from datasets import Dataset, DatasetDict
from llamafactory.train.tuner import run_exp

from benchmarks.measuring import Job, Trained, read_job, report
from benchmarks.peers.trainers import Watch, shared_settings


def variants(task: str, batch_size: int) -> dict[str, dict[str, Any]]:
    """Settings tried; the fastest is "tuned". The quick start has bf16 and checkpointing."""
    plain = {"disable_gradient_checkpointing": True}
    pure = {**plain, "pure_bf16": True, "bf16": False}
    ones = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch_size}
    found = {"no checkpointing": {**plain, "bf16": True}, "pure bf16": pure}
    if batch_size > 1:
        found["pure bf16, one by one"] = {**pure, **ones}
    return found


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
        **shared_settings(job), "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_target": "all", "lora_rank": job.rank, "lora_alpha": job.alpha, "lora_dropout": 0.0,
        "model_name_or_path": job.model, "template": "default",
        "tokenized_path": data, "dataset": "tokenised", "disable_shuffling": True,
        "bf16": True, "overwrite_output_dir": True, **job.variant,
    }  # fmt: skip
    run_exp(settings, callbacks=[watch])
    return watch.trained()


if __name__ == "__main__":
    main()
