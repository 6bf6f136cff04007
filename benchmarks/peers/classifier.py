"""transformers' Trainer on a classifier, as its documentation has it."""

from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from benchmarks.measuring import Job, Trained, read_job, report, start_head
from benchmarks.peers.trainers import Watch, is_bfloat16_faster, shared_settings


def variants(task: str, batch_size: int) -> dict[str, dict[str, Any]]:
    """Settings tried; the fastest is "tuned". As shipped it computes in float32."""
    parts = {f"in {n} parts by length": {"parts": n} for n in (1, 2, 4, 8)}
    if not is_bfloat16_faster():
        return parts
    return {
        **{f"autocast, {name}": {**settings, "bf16": True} for name, settings in parts.items()},
        "autocast": {"bf16": True},
    }


def main() -> None:
    """Train, and report."""
    job = read_job()
    report(job, _train(job), ("transformers",))


class _Watch(Watch):
    """Sees texts with a class each."""

    def _look(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs.get("labels") is None:
            return
        rows = zip(kwargs["input_ids"].tolist(), kwargs["attention_mask"].tolist(),
                   kwargs["labels"].tolist(), strict=True)  # fmt: skip
        self.seen.take(
            [([i for i, m in zip(ids, mask, strict=True) if m], [-100, label])
             for ids, mask, label in rows]
        )  # fmt: skip


def _train(job: Job) -> Trained:
    settings = {**shared_settings(job), **job.variant}
    model = AutoModelForSequenceClassification.from_pretrained(
        job.model, num_labels=job.rows[0]["num_classes"]
    )
    start_head(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # all contenders train without: their losses can be compared
    rows = [{"input_ids": row["ids"][0], "label": row["class"]} for row in job.rows]
    if parts := settings.pop("parts", 0):
        # Rows of like length together, within a step: the step's gradient stays the same.
        rows = [row for start in range(0, len(rows), job.batch_size)
                for row in sorted(rows[start : start + job.batch_size],
                                  key=lambda row: len(row["input_ids"]))]  # fmt: skip
        settings["per_device_train_batch_size"] = job.batch_size // parts
        settings["gradient_accumulation_steps"] = parts
    watch = _Watch(job, job.batch_size)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(train_sampling_strategy="sequential", **settings),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(job.model)),
        callbacks=[watch],
    )
    # Else it takes the model's mean loss for a sum, and adds up micro-batches instead of averaging.
    trainer.model_accepts_loss_kwargs = False
    trainer.train()

    def ask(ids: list[int]) -> torch.Tensor:
        return model.eval()(torch.tensor([ids])).logits[0]

    return Trained(ask, watch.clock.seconds, watch.losses, watch.seen.steps)


if __name__ == "__main__":
    main()
