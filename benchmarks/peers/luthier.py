"""Luthier's own loop, with the settings it would choose on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import (
    IGNORED,
    Clock,
    Job,
    Row,
    Seen,
    Trained,
    read_job,
    report,
    sequences_of,
    start_adapter,
)
from benchmarks.peers import luthier_texts
from luthier.models import (
    FlatBatch,
    choose_device,
    lean,
    load_model,
    make_trainable,
    peak_memory,
    precision,
    probe_devices,
    trained,
)
from luthier.recipe import DPO, Full, LoRA, Training
from luthier.tokens import Encoded, EncodedPair
from luthier.training import (
    StepDone,
    SupervisedObjective,
    Surroundings,
    TrainingEvent,
    build_objective,
    reference_logprobs,
    train,
    with_references,
)

MICRO_BATCH_TOKENS = 2048


def main() -> None:
    """Train, and report."""
    job = read_job()
    if job.task in ("classify", "embed"):
        report(job, luthier_texts.run(job), ("transformers",))
    else:
        report(job, run(job), ("transformers", "peft"))


def run(job: Job) -> Trained:
    """Train by the loop that `luthier train` uses."""
    fastest = "bfloat16" if probe_devices().has_fast_bfloat16 else "float32"
    dtype = precision(job.variant.get("dtype", fastest))
    loaded = load_model(Path(job.model), dtype=dtype, device=choose_device("cpu", job.threads))
    tuning = Full() if job.task == "full" else LoRA(rank=job.rank, alpha=job.alpha)
    make_trainable(loaded, tuning, seed=0)
    start_adapter(loaded.network)
    if job.variant.get("rounding") == "usual":
        _round_as_usual(Path(job.model))
    examples: list[Any] = [encoded(str(i), row) for i, row in enumerate(job.rows)]
    before = Clock()
    before.start()
    if job.task == "dpo":
        examples = with_references(
            examples, reference_logprobs(loaded, examples, MICRO_BATCH_TOKENS, lambda done: None)
        )
        objective: Any = build_objective(DPO(beta=job.beta), share_prefixes=True)
    else:
        objective = SupervisedObjective(share_prefixes=True)
    before.stop()
    losses: list[float] = []
    seen, clock = Seen(job.batch_size * len(sequences_of(job.rows[0]))), Clock()
    objective.collate = _noting(objective.collate, seen)

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)
            if event.step == event.num_steps:
                clock.stop()

    surroundings = Surroundings(job.scratch, "", None, observe, lambda: False, peak_memory)
    placed: list[Any] = [None] * len(examples)
    for example, place in zip(examples, job.places, strict=True):
        placed[place] = example
    clock.start()
    train(loaded, objective, placed, _training(job), surroundings)
    loaded.base.set_attn_implementation("sdpa")
    return Trained(loaded.network, clock.seconds, losses, seen.steps, before.seconds)


def _round_as_usual(model: Path) -> None:
    """From now on, lose of small updates in bfloat16 what others lose.

    An adapter's update is added to what is rounded already, as by PEFT; weights that learn start
    from the stored values and are rounded to nearest, as by autocast.
    """
    stored = load_model(model, dtype=torch.float32, device=torch.device("cpu")).network
    values = dict(stored.named_parameters())
    begin = trained.TrainedWeights.__init__

    def begin_stored(self: trained.TrainedWeights, network: torch.nn.Module) -> None:
        begin(self, network)
        for name in self.masters.keys() & values.keys():
            self.masters[name].data.copy_(values[name])

    def add_late(self: lean.Adapted, x: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
        base = torch.nn.functional.linear(x, self.weight, self.bias)
        return base.addmm_(inner, self.up.t())

    trained.TrainedWeights.__init__ = begin_stored  # type: ignore[method-assign]
    trained.round_evenly = torch.Tensor.bfloat16  # type: ignore[attr-defined, assignment]
    lean.Adapted.output = add_late  # type: ignore[method-assign]


def _noting(
    collate: Callable[[Sequence[Any]], FlatBatch], seen: Seen
) -> Callable[[Sequence[Any]], FlatBatch]:
    """The same, and it is noted which sequences were computed."""

    def noted(members: Sequence[Any]) -> FlatBatch:
        seen.take([(list(s.input_ids), list(s.labels)) for m in members for s in m.sequences])
        return collate(members)

    return noted


def _training(job: Job) -> Training:
    return Training.model_validate(
        {
            "epochs": 1, "batch_size": job.batch_size, "learning_rate": job.learning_rate,
            "schedule": "constant", "warmup_ratio": 0.0, "micro_batch_tokens": MICRO_BATCH_TOKENS,
            "max_length": 8192, "max_grad_norm": job.max_grad_norm or 1e9,
            "evaluate_every": 10**6, "checkpoint_every": 10**6,
        }
    )  # fmt: skip


def encoded(name: str, row: Row) -> Encoded | EncodedPair:
    """A row as the loop takes it."""
    sequences = [Encoded(name, *ids, _spans(ids[1])) for ids in sequences_of(row)]
    return sequences[0] if len(sequences) == 1 else EncodedPair(sequences[0], sequences[1])


def _spans(labels: list[int]) -> tuple[tuple[int, int], ...]:
    """Ranges of supervised tokens; the first token of a row predicts nothing from nothing."""
    learnt = {t for t, label in enumerate(labels) if label != IGNORED and t > 0}
    starts = sorted(t for t in learnt if t - 1 not in learnt)
    ends = sorted(t + 1 for t in learnt if t + 1 not in learnt)
    return tuple(zip(starts, ends, strict=True))


if __name__ == "__main__":
    main()
