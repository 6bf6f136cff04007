"""What peers on transformers' Trainer share: a callback that times, starts alike and looks."""

import time
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.measuring import Clock, Job, Seen, Trained, start_adapter


class Watch(TrainerCallback):
    """Sets the adapter's start, times the training, and notes losses and what was computed on."""

    def __init__(self, job: Job, sequences_per_step: int) -> None:
        self.job, self.clock, self.seen = job, Clock(), Seen(sequences_per_step)
        self.losses: list[float] = []
        self.network: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start from the same adapter as all, and begin to measure."""
        self.network = kwargs["model"]
        start_adapter(self.network)
        if self.job.task != "dpo":
            self.network.register_forward_pre_hook(self._look, with_kwargs=True)
        self.clock.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop measuring."""
        self.clock.stop()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Note the loss of a step."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def _look(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if "labels" in kwargs:
            self.seen.take_batch(kwargs)

    def trained(self, reference_seconds: float = 0.0) -> Trained:
        """What came out."""
        # The trainer may have replaced the forward (chunked loss); the model's own is measured.
        base = self.network.get_base_model() if self.job.task != "full" else self.network
        base.__dict__.pop("forward", None)
        return Trained(
            self.network, self.clock.seconds, self.losses, self.seen.steps, reference_seconds
        )


def is_bfloat16_faster() -> bool:
    """Whether this CPU multiplies matrices of bfloat16 faster than those of float32: measured."""

    def seconds(dtype: torch.dtype) -> float:
        one, other = (torch.ones(512, 512, dtype=dtype) for _ in range(2))
        times = []
        for _ in range(9):
            start = time.perf_counter()
            one @ other
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.bfloat16) < seconds(torch.float32)


def shared_settings(job: Job) -> dict[str, Any]:
    """Trainer's settings that the comparison fixes: all contenders do this work."""
    return {
        "output_dir": str(job.scratch),
        "num_train_epochs": 1,
        "per_device_train_batch_size": job.batch_size,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": job.max_grad_norm,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
    }
