"""Luthier's own loop on texts, with the settings it would choose on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import Clock, Job, Seen, Trained, sequences_of, start_head
from luthier.models import (
    choose_device,
    load_encoder,
    make_encoder_trainable,
    peak_memory,
    precision,
    probe_devices,
)
from luthier.recipe import Full, Training
from luthier.tokens import EncodedText, EncodedTexts
from luthier.training import (
    ClassObjective,
    PairContrast,
    StepDone,
    Surroundings,
    TrainingEvent,
    train,
)

MICRO_BATCH_TOKENS = 8192
"""What the rule says for a model of this size."""
SCALE = 20.0


def run(job: Job) -> Trained:
    """Train by the loop that `luthier train` uses."""
    fastest = "bfloat16" if probe_devices().has_fast_bfloat16 else "float32"
    model = load_encoder(
        Path(job.model),
        dtype=precision(job.variant.get("dtype", fastest)),
        device=choose_device("cpu", job.threads),
        answers=job.rows[0]["num_classes"] if job.task == "classify" else 0,
        head="own",
    )
    if model.classifier is not None:
        start_head(model.classifier)
    examples = [encoded(str(i), row) for i, row in enumerate(job.rows)]
    used = {i for example in examples for text in example.texts for i in text.input_ids}
    make_encoder_trainable(model, Full(), 0, used)
    objective: Any = PairContrast(SCALE, is_symmetric=False, is_causal=False)
    if job.task == "classify":
        objective = ClassObjective("single", num_classes=job.rows[0]["num_classes"])
    losses: list[float] = []
    seen, clock = Seen(job.batch_size * len(sequences_of(job.rows[0]))), Clock()
    _note_batches(objective, seen)

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)
            if event.step == event.num_steps:
                clock.stop()

    placed: list[Any] = [None] * len(examples)
    for example, place in zip(examples, job.places, strict=True):
        placed[place] = example
    surroundings = Surroundings(job.scratch, "", None, observe, lambda: False, peak_memory)
    clock.start()
    train(model, objective, placed, _training(job), surroundings)

    def ask(ids: list[int]) -> torch.Tensor:
        batch = model.pack([EncodedText(ids)])
        return (model.logits(batch) if job.task == "classify" else model.vectors(batch))[0]

    return Trained(ask, clock.seconds, losses, seen.steps)


def _note_batches(objective: Any, seen: Seen) -> None:
    """Note which texts are computed, once for each time a step asks for them."""
    collate = objective.collate

    def noted(members: Sequence[EncodedTexts]) -> Any:
        for member in members:
            label = member.classes[0] if member.classes else 0
            seen.take([(list(text.input_ids), [-100, label]) for text in member.texts])
        return collate(members)

    objective.collate = noted


def _training(job: Job) -> Training:
    return Training.model_validate(
        {
            "epochs": 1, "batch_size": job.batch_size, "learning_rate": job.learning_rate,
            "schedule": "constant", "warmup_ratio": 0.0, "micro_batch_tokens": MICRO_BATCH_TOKENS,
            "max_length": 256, "max_grad_norm": job.max_grad_norm or 1e9,
            "evaluate_every": 10**6, "checkpoint_every": 10**6,
        }
    )  # fmt: skip


def encoded(name: str, row: dict[str, Any]) -> EncodedTexts:
    """A row as the loop takes it."""
    texts = tuple(EncodedText(ids) for ids in row["ids"])
    return EncodedTexts(name, texts, (row["class"],) if len(texts) == 1 else ())
