"""TRL: SFT with LoRA by PEFT or of all weights, and DPO with the reference computed before."""

import time
from typing import Any

import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.measuring import Job, Trained, read_job, report
from benchmarks.peers.trainers import Watch, is_bfloat16_faster, shared_settings

BF16 = {"dtype": "bfloat16", "bf16": False, "gradient_checkpointing": False}
AUTOCAST = {"dtype": "float32", "bf16": True, "gradient_checkpointing": False}
FLOAT32 = {"dtype": "float32", "bf16": False, "gradient_checkpointing": False}
FREE = {"padding_free": True}


def variants(task: str, batch_size: int) -> dict[str, dict[str, Any]]:
    """Settings tried; the fastest is TRL "tuned". The quick start has none of them."""
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": batch_size // 2}
    ones = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": batch_size}
    found = {"float32": FLOAT32}
    if is_bfloat16_faster():
        found = {"bf16 weights": BF16, "autocast": AUTOCAST, **found}
    if task == "full":  # steps of bfloat16 weights vanish: not the same work
        found.pop("bf16 weights", None)
    # Ways to make batches are tried in what this machine computes fastest.
    fastest = next(iter(found))
    ways: dict[str, dict[str, Any]] = {}
    if task != "dpo":  # TRL's DPO has no padding-free batches at present
        ways["padding-free"] = FREE
    if batch_size > 1:
        ways |= {"two by two": halves, "one by one": ones}
        if task != "dpo":
            ways["padding-free, two by two"] = {**FREE, **halves}
    tried = {f"{fastest}, {way}": {**found[fastest], **ways[way]} for way in ways}
    return found | tried


def main() -> None:
    """Train, and report."""
    job = read_job()
    trained = _dpo(job) if job.task == "dpo" else _sft(job)
    report(job, trained, ("trl", "transformers", "peft"))


def _sft(job: Job) -> Trained:
    settings, model = _settings_and_model(job)
    watch = Watch(job, job.batch_size)
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(
            train_sampling_strategy="sequential",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            **settings,
        ),
        train_dataset=Dataset.from_list(job.rows),
        peft_config=_lora(job) if job.task == "lora" else None,
        callbacks=[watch],
    )
    trainer.train()
    return watch.trained()


class _Tokenised(trl.DPOTrainer):
    """TRL's, for rows that are ids already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def _dpo(job: Job) -> Trained:
    settings, model = _settings_and_model(job)
    watch = Watch(job, 2 * job.batch_size)
    started = time.perf_counter()
    trainer = _Tokenised(
        model=model,
        args=trl.DPOConfig(
            train_sampling_strategy="sequential",
            max_length=None,
            beta=job.beta,
            precompute_ref_log_probs=True,
            **settings,
        ),
        train_dataset=Dataset.from_list(job.rows),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=_lora(job),
        callbacks=[watch],
    )
    reference_seconds = time.perf_counter() - started
    compute = trainer.compute_loss

    def looked(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        labels = inputs["input_ids"].where(inputs["completion_mask"].bool(), -100)
        watch.seen.take_batch({**inputs, "labels": labels})
        return compute(model, inputs, *args, **kwargs)

    trainer.compute_loss = looked
    trainer.train()
    return watch.trained(reference_seconds)


def _settings_and_model(job: Job) -> tuple[dict[str, Any], Any]:
    """The quick start names a model; a variant loads it in its own precision."""
    settings = {**shared_settings(job), **job.variant}
    dtype = settings.pop("dtype", None)
    if dtype is None:
        return settings, job.model
    return settings, AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype)


def _lora(job: Job) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM", r=job.rank, lora_alpha=job.alpha, lora_dropout=0.0,
        target_modules="all-linear",
    )  # fmt: skip


if __name__ == "__main__":
    main()
