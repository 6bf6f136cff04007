"""transformers' own Trainer with PEFT, as a careful user writes it: labels, a padding collator."""

from typing import Any

from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    Trainer,
    TrainingArguments,
)

from benchmarks.measuring import Job, Trained, read_job, report
from benchmarks.peers.trainers import Watch, is_bfloat16_faster, shared_settings

BF16 = {"dtype": "bfloat16"}
AUTOCAST = {"dtype": "float32", "bf16": True}
FLOAT32 = {"dtype": "float32"}


def variants(task: str, batch_size: int) -> dict[str, dict[str, Any]]:
    """Settings tried; the fastest is "tuned". As shipped it computes in float32."""
    ones = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch_size}
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": batch_size // 2}
    found = {"float32": FLOAT32}
    if is_bfloat16_faster():
        found = {"bf16 weights": BF16, "autocast": AUTOCAST, **found}
    # Ways to make batches are tried in what this machine computes fastest.
    fastest = next(iter(found))
    ways: dict[str, dict[str, Any]] = {"padding-free": {"padding_free": True}}
    if batch_size > 1:
        ways |= {"two by two": halves, "one by one": ones}
    tried = {f"{fastest}, {way}": {**found[fastest], **ways[way]} for way in ways}
    return found | tried


def main() -> None:
    """Train, and report."""
    job = read_job()
    report(job, _train(job), ("transformers", "peft"))


def _train(job: Job) -> Trained:
    settings = {**shared_settings(job), **job.variant}
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=settings.pop("dtype", "float32"))
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=job.rank, lora_alpha=job.alpha, lora_dropout=0.0,
        target_modules="all-linear",
    )  # fmt: skip
    collate: Any = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(job.model))
    if settings.pop("padding_free", False):
        collate = DataCollatorWithFlattening(return_position_ids=True)
    watch = Watch(job, job.batch_size)
    trainer = Trainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(train_sampling_strategy="sequential", **settings),
        train_dataset=Dataset.from_list(job.rows),
        data_collator=collate,
        callbacks=[watch],
    )
    trainer.train()
    return watch.trained()


if __name__ == "__main__":
    main()
