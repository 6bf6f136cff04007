"""Who trains: Luthier, TRL as its quick start has it, and TRL in every way we know to speed it up.

All get the same ids, labels, batches, order, adapter start, optimizer and learning rate.
"""

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.workloads import BATCH_SIZE

LEARNING_RATE, RANK, ALPHA = 1e-3, 16, 32

_BF16_WEIGHTS = {"dtype": "bfloat16", "bf16": False, "gradient_checkpointing": False}
_AUTOCAST = {"dtype": "float32", "bf16": True, "gradient_checkpointing": False}
_ONE_BY_ONE = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH_SIZE}
_TWO_BY_TWO = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": BATCH_SIZE // 2}
_CHUNKED = {"loss_type": "chunked_nll"}
TRL_VARIANTS: dict[str, dict[str, Any]] = {
    "bf16 weights": _BF16_WEIGHTS,
    "bf16 weights, chunked loss": {**_BF16_WEIGHTS, **_CHUNKED},
    "bf16 weights, padding-free": {**_BF16_WEIGHTS, "padding_free": True},
    "bf16 weights, two by two": {**_BF16_WEIGHTS, **_TWO_BY_TWO},
    "bf16 weights, two by two, chunked loss": {**_BF16_WEIGHTS, **_TWO_BY_TWO, **_CHUNKED},
    "bf16 weights, one by one": {**_BF16_WEIGHTS, **_ONE_BY_ONE},
    "bf16 weights, one by one, chunked loss": {**_BF16_WEIGHTS, **_ONE_BY_ONE, **_CHUNKED},
    "autocast": _AUTOCAST,
    "autocast, one by one": {**_AUTOCAST, **_ONE_BY_ONE},
    "autocast, one by one, chunked loss": {**_AUTOCAST, **_ONE_BY_ONE, **_CHUNKED},
}
"""Settings of TRL tried on each workload; the fastest goes against Luthier as "TRL tuned"."""

Trained = tuple[Any, float, list[float]]
"""The trained network, the seconds training took, and the loss of each step."""


def run(contender: str, rows: list[dict[str, Any]], model: Path, folder: Path) -> Trained:
    """Train in this process: "luthier", "trl", or "trl: " and a variant."""
    if contender == "luthier":
        return _run_luthier(rows, model, folder)
    return _run_trl(TRL_VARIANTS.get(contender.removeprefix("trl: "), {}), rows, model, folder)


def _run_luthier(rows: list[dict[str, Any]], model: Path, folder: Path) -> Trained:
    """Our loop, with the settings it would choose on this machine."""
    import torch

    from luthier.models import load_model, make_trainable, peak_memory, precision, probe_devices
    from luthier.recipe import LoRA, Training
    from luthier.runs import num_cores
    from luthier.tokens import Encoded
    from luthier.training import StepDone, SupervisedObjective, Surroundings, TrainingEvent, train

    devices = probe_devices()
    torch.set_num_threads(num_cores())
    dtype = precision("bfloat16" if devices.has_bfloat16 else "float32")
    loaded = load_model(model, dtype=dtype, device=torch.device("cpu"))
    make_trainable(loaded, LoRA(rank=RANK, alpha=ALPHA, dropout=0.0), seed=0)
    _start_adapter(loaded.network)
    losses: list[float] = []

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)

    training = Training.model_validate(
        {
            "epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE,
            "schedule": "constant", "warmup_ratio": 0.0, "micro_batch_tokens": 2048,
            "max_length": 8192, "evaluate_every": 10**6, "checkpoint_every": 10**6,
        }
    )  # fmt: skip
    surroundings = Surroundings(
        folder / f"checkpoints-{os.getpid()}", "", None, observe, lambda: False, peak_memory
    )
    encoded = [
        Encoded(str(i), row["input_ids"], row["labels"], _spans(row["labels"]))
        for i, row in enumerate(rows)
    ]
    ordered = _in_order(encoded)
    started = time.perf_counter()
    train(loaded, SupervisedObjective(share_prefixes=True), ordered, training, surroundings)
    seconds = time.perf_counter() - started
    loaded.base.set_attn_implementation("sdpa")
    return loaded.network, seconds, losses


def _placed(rows: list[Any], order: list[int]) -> list[Any]:
    """Rows in the order they are visited, back at the places the loop's plan takes them from."""
    placed: list[Any] = [None] * len(rows)
    for row, position in zip(rows, order, strict=True):
        placed[position] = row
    return placed


def _spans(labels: list[int]) -> tuple[tuple[int, int], ...]:
    """Ranges of supervised tokens; the first token of a row predicts nothing from nothing."""
    learnt = {t for t, label in enumerate(labels) if label != -100 and t > 0}
    starts = sorted(t for t in learnt if t - 1 not in learnt)
    ends = sorted(t + 1 for t in learnt if t + 1 not in learnt)
    return tuple(zip(starts, ends, strict=True))


def _run_trl(
    variant: dict[str, Any], rows: list[dict[str, Any]], model: Path, folder: Path
) -> Trained:
    """TRL with LoRA by PEFT: its defaults, but for what the comparison fixes and the variant."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    from luthier.runs import num_cores

    trl: Any = import_module("trl")  # optional, and its exports are not typed
    torch.set_num_threads(num_cores())
    settings = {"per_device_train_batch_size": BATCH_SIZE, **variant}
    dtype = settings.pop("dtype", None)
    config = trl.SFTConfig(
        output_dir=str(folder / f"trl-{os.getpid()}"),
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        use_cpu=True,
        **settings,
    )
    trainer = trl.SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=dtype) if dtype else str(model),
        args=config,
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear"
        ),
    )
    _start_adapter(trainer.model)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # The trainer may have replaced the forward (chunked loss); the model's own is measured.
    trainer.model.get_base_model().__dict__.pop("forward", None)
    return trainer.model, seconds, losses


def _start_adapter(network: Any) -> None:
    """Start everyone from the same adapter: A from one seed in the order of names, B zero."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            if "lora_A" in name:
                bound = parameter.shape[1] ** -0.5
                values = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.copy_(values)
            elif "lora_B" in name:
                parameter.zero_()
