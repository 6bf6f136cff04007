"""What every contender's process does alike; needs torch and transformers only.

A job is a JSON file. The contender trains on its rows, in their order, from a given start, and
`report` prints one line: seconds, losses, held-out loss, peak memory, and which rows it really saw.
"""

import hashlib
import json
import os
import resource
import sys
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

IGNORED = -100
TOLERANCE = 0.05
"""Largest difference of losses between contenders, in nats: one computes in mixed precision."""

Row = dict[str, Any]
"""Of SFT: input_ids, labels. Of DPO: prompt_ids, chosen_ids, rejected_ids. Of texts: texts, ids of
each, class."""


@dataclass(frozen=True)
class Job:
    """What a contender is to do."""

    task: str
    """lora, full, dpo, classify or embed."""
    variant: dict[str, Any]
    """Settings of the contender's own."""
    rows: list[Row]
    """Training rows in the order of visiting."""
    held_out: list[Row]
    places: list[int]
    """Where Luthier's plan expects each of the rows."""
    model: str
    """Folder of the model, for transformers."""
    folder: str
    """Scratch space; shared by the contenders."""
    batch_size: int
    learning_rate: float
    max_grad_norm: float
    """0: gradients are not clipped."""
    rank: int = 16
    alpha: int = 32
    beta: float = 0.1
    threads: int = 2

    @property
    def scratch(self) -> Path:
        """A folder for this process alone."""
        place = Path(self.folder) / f"process-{os.getpid()}"
        place.mkdir(parents=True, exist_ok=True)
        return place


def read_job() -> Job:
    """The job named on the command line; sets the number of threads."""
    import torch

    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    return job


def peak_bytes() -> int:
    """Most memory this process has held, without what its parent held when it was started."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Trained:
    """What came out."""

    network: Any
    """Called with input_ids [1, T], gives logits; of texts, with the ids of one, its answer."""
    seconds: float
    """From the first batch to the last update."""
    losses: list[float]
    seen: list[str]
    """One hash per step, of the ids and labels the step was computed on."""
    reference_seconds: float = 0.0
    """DPO: what the model at the start took to look at all answers, before."""


def report(job: Job, trained: Trained, packages: tuple[str, ...]) -> None:
    """Print what was measured, as the last line of standard output."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sequences = [ids for row in job.rows for ids, _ in sequences_of(row)]
    labels = [labels for row in job.rows for _, labels in sequences_of(row)]
    found = {
        "seconds": trained.seconds,
        "reference_seconds": trained.reference_seconds,
        "losses": trained.losses[:10],
        "held_out": held_out_loss(job, trained.network),
        "tokens": sum(len(ids) for ids in sequences),
        "supervised": sum(label != IGNORED for row in labels for label in row),
        "peak_bytes": peak,
        "seen": trained.seen,
        "versions": {name: metadata.version(name) for name in ("torch", *packages)},
    }
    print("\n" + json.dumps(found))


def sequences_of(row: Row) -> list[tuple[list[int], list[int]]]:
    """The ids and labels of a row: one sequence, a pair's two, or texts with the row's class."""
    if "ids" in row:
        return [(ids, [IGNORED, row["class"]]) for ids in row["ids"]]
    if "input_ids" in row:
        return [(row["input_ids"], row["labels"])]
    prompt = row["prompt_ids"]
    return [
        (prompt + answer, [IGNORED] * len(prompt) + answer)
        for answer in (row["chosen_ids"], row["rejected_ids"])
    ]


def hash_step(sequences: list[tuple[list[int], list[int]]]) -> str:
    """Hash of what a step was computed on, whatever order it took the sequences in."""
    digest = hashlib.sha256()
    # A first label predicts nothing from nothing; some contenders leave it, some do not.
    for ids, labels in sorted((ids, labels[1:]) for ids, labels in sequences):
        digest.update(json.dumps([ids, labels]).encode())
    return digest.hexdigest()[:16]


@dataclass
class Seen:
    """Gathers the sequences that reach a network, step by step."""

    per_step: int
    """Sequences in a step."""
    steps: list[str] = field(default_factory=list)
    _waiting: list[tuple[list[int], list[int]]] = field(default_factory=list)

    def take(self, sequences: list[tuple[list[int], list[int]]]) -> None:
        """Note sequences."""
        self._waiting += sequences
        while len(self._waiting) >= self.per_step:
            self.steps.append(hash_step(self._waiting[: self.per_step]))
            del self._waiting[: self.per_step]

    def take_batch(self, batch: dict[str, Any]) -> None:
        """Note the rows of a padded batch, or of one whose rows follow each other."""
        ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
        positions, mask = batch.get("position_ids"), batch.get("attention_mask")
        if mask is None and positions is not None and len(ids) == 1:
            starts = [t for t, p in enumerate(positions[0].tolist()) if p == 0]
            bounds = zip(starts, [*starts[1:], len(ids[0])], strict=True)
            self.take([(ids[0][a:b], labels[0][a:b]) for a, b in bounds])
            return
        kept = mask.tolist() if mask is not None else [[1] * len(row) for row in ids]
        rows = []
        for row, own, is_real in zip(ids, labels, kept, strict=True):
            real = [t for t, k in enumerate(is_real) if k]
            rows.append(([row[t] for t in real], [own[t] for t in real]))
        self.take(rows)


class Clock:
    """Seconds from start to stop."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def start(self) -> None:
        """Begin."""
        self._started = time.perf_counter()

    def stop(self) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._started


def start_adapter(network: Any) -> None:
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


def start_head(network: Any) -> None:
    """Start everyone from the same head of a classifier."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            if "classifier" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def held_out_loss(job: Job, network: Any) -> float:
    """Mean loss over held-out rows by the network's logits alone, row by row.

    Of SFT per supervised token; of DPO per pair, against the network without its adapter; of
    classes and of pairs of texts per row.
    """
    import torch
    from torch.nn import functional

    if "ids" in job.held_out[0]:
        return _held_out_texts(job, network)
    network.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in job.held_out:
            sums = [_negative_logprob(network, *sequence) for sequence in sequences_of(row)]
            if job.task != "dpo":
                total += sums[0]
                count += sum(label != IGNORED for label in row["labels"][1:])
                continue
            with network.disable_adapter():
                starts = [_negative_logprob(network, *sequence) for sequence in sequences_of(row)]
            margin = (sums[1] - starts[1]) - (sums[0] - starts[0])
            total -= functional.logsigmoid(torch.tensor(job.beta * margin)).item()
            count += 1
    return total / count


def _held_out_texts(job: Job, network: Any) -> float:
    """Cross-entropy of classes, or of finding each pair's second text among all."""
    import torch
    from torch.nn import functional

    with torch.no_grad():
        sides = [
            torch.stack([network(row["ids"][i]).float() for row in job.held_out])
            for i in range(len(job.held_out[0]["ids"]))
        ]
    if job.task == "classify":
        labels = torch.tensor([row["class"] for row in job.held_out])
        return functional.cross_entropy(sides[0], labels).item()
    first, second = (functional.normalize(side, dim=-1) for side in sides)
    return functional.cross_entropy(20 * first @ second.T, torch.arange(len(first))).item()


def _negative_logprob(network: Any, ids: list[int], labels: list[int]) -> float:
    """Sum of the losses of a sequence's labels."""
    import torch
    from torch.nn import functional

    output = network(torch.tensor([ids]))
    logits = getattr(output, "logits", output)[0].float()
    return functional.cross_entropy(
        logits[:-1], torch.tensor(labels[1:]), ignore_index=IGNORED, reduction="sum"
    ).item()
