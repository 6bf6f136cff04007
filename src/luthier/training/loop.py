"""The loop: examples become steps, steps become checkpoints. One loop for every method.

The caller brings the model with its trainable parameters, the objective, the examples, a folder,
and what to do with events. The loop knows no runs, no progress bars and no evaluation: validation
is a callable handed in. Every step is normalised by the supervised tokens of the whole step.
Killed at any moment and called again, it ends with the same weights, bit for bit on a CPU.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.profiler import record_function

from luthier.errors import TrainingError
from luthier.models.learner import Learner
from luthier.models.sharding import whole
from luthier.models.trained import TrainedWeights
from luthier.recipe import Training, settled
from luthier.training import checkpoints
from luthier.training.batches import StepPlan
from luthier.training.checkpoints import Progress
from luthier.training.gradients import Gradients, Squeezed
from luthier.training.memory import reserve_moments
from luthier.training.objectives import Measured, Objective
from luthier.training.optimizers import build_optimizer, learning_rate_factor
from luthier.training.profiling import Profiler
from luthier.training.ranks import Ranks
from luthier.training.sharded import load_sharded, save_sharded


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer update."""

    step: int
    num_steps: int
    loss: float
    """The objective's mean before the update: per supervised token in nats, or per pair."""
    learning_rate: float
    grad_norm: float
    """Norm of the gradient before clipping."""
    num_tokens: int
    num_supervised: int
    seconds: float
    memory_bytes: int
    """Peak memory of the process so far (or of the device)."""
    watched: dict[str, float] = field(default_factory=dict)
    """What the objective watches besides its loss, as means over the step's examples."""


@dataclass(frozen=True, slots=True)
class RowsLearnt:
    """The examples of a step, and the loss of each before the update, where it is known."""

    step: int
    rows: tuple[int, ...]
    """Numbers of the examples, from 0; one may come twice."""
    losses: tuple[float, ...]
    """Means per supervised token in nats, per pair, or per row: as the objective has them."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A validation loss measured after `step` updates."""

    step: int
    loss: float
    is_best: bool
    watched: dict[str, float] = field(default_factory=dict)
    """What the objective watches besides its loss, as means over the held-out examples."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint written after `step` updates."""

    step: int


@dataclass(frozen=True, slots=True)
class Damaged:
    """A checkpoint that is not whole, and is passed over for an earlier one."""

    reason: str


TrainingEvent = StepDone | RowsLearnt | Validated | Saved | Squeezed | Damaged


@dataclass(frozen=True, slots=True)
class Outcome:
    """How training ended; the model holds the best weights unless it was interrupted."""

    status: Literal["finished", "stopped early", "interrupted"]
    num_steps: int
    best_step: int
    best_loss: float | None


@dataclass(frozen=True)
class Surroundings:
    """What the loop is given besides what it trains: effects come in here."""

    folder: Path
    """Where checkpoints are written."""
    recipe_hash: str
    validate: Callable[[], Measured] | None
    """Measures the model as it is on held-out examples."""
    observe: Callable[[TrainingEvent], None]
    is_interrupted: Callable[[], bool]
    """Asked after every step; when true, a checkpoint is written and the loop ends."""
    memory: Callable[[], int]
    """Peak memory in bytes."""
    ranks: Ranks = field(default_factory=Ranks)
    """The processes that train together."""
    profiler: Profiler | None = None
    """Measures some steps."""
    resumed: Callable[[int], None] = lambda step: None
    """Told the step training goes on from, before the first one."""


def train(
    model: Learner,
    objective: Objective,
    examples: Sequence[Any],
    training: Training,
    surroundings: Surroundings,
    classes: Sequence[int] = (),
) -> Outcome:
    """Train from the newest checkpoint in the folder, or from the start.

    `training` is resolved: no value is "auto". With the class of each example, all classes come
    equally often. Raises TrainingError when a loss is not finite.
    """
    loop = _Loop(model, objective, examples, training, surroundings, classes)
    return loop.run()


class _Loop:
    def __init__(
        self,
        model: Learner,
        objective: Objective,
        examples: Sequence[Any],
        training: Training,
        surroundings: Surroundings,
        classes: Sequence[int],
    ) -> None:
        self.model, self.objective, self.examples = model, objective, examples
        self.training, self.surroundings = training, surroundings
        self.ranks, self.is_sharded = surroundings.ranks, model.root is not None
        self.plan = StepPlan(
            tuple(example.num_tokens for example in examples),
            settled(training.batch_size),
            settled(training.epochs),
            training.seed,
            settled(training.micro_batch_tokens),
            training.max_steps,
            tuple(classes),
            training.order,
        )
        self.trained = TrainedWeights(model.network)
        self.parameters = self.trained.masters
        self.optimizer = build_optimizer(
            self.parameters.values(), training.optimizer, training.weight_decay
        )
        self.gradients = Gradients(model, objective, examples, self.trained, surroundings.ranks)
        self.progress = Progress(
            step=0,
            recipe_hash=surroundings.recipe_hash,
            micro_batch_tokens=settled(training.micro_batch_tokens),
            activations=training.activations,
        )

    def run(self) -> Outcome:
        self._resume()
        every = settled(self.training.evaluate_every)
        self.model.network.train()
        while self.progress.step < self.plan.num_steps and not self.progress.stopped_early:
            self._profiled_step()
            is_last = self.progress.step == self.plan.num_steps
            if self.progress.step % every == 0 or is_last:
                self._validate()
            if self.ranks.any(self.surroundings.is_interrupted()) and not is_last:
                self._save()
                return self._outcome("interrupted")
            if self.progress.step % settled(self.training.checkpoint_every) == 0 or is_last:
                self._save()
        self._load_best()
        self.model.network.eval()
        return self._outcome("stopped early" if self.progress.stopped_early else "finished")

    def _outcome(self, status: Literal["finished", "stopped early", "interrupted"]) -> Outcome:
        progress = self.progress
        return Outcome(status, progress.step, progress.best_step, progress.best_loss)

    def _resume(self) -> None:
        folder, ranks = self.surroundings.folder, self.ranks
        place: Path | None = None
        if ranks.is_first:
            checkpoints.remove_unfinished(folder)
            place, damaged = checkpoints.find_newest(folder, self.surroundings.recipe_hash)
            for error in damaged:
                self.surroundings.observe(Damaged(str(error)))
        place = ranks.tell(place)
        if place is not None and self.is_sharded:
            self.progress = load_sharded(place, self.parameters, self.optimizer)
        elif place is not None:
            # Only the first rank need have the files at hand.
            files = ranks.tell(checkpoints.read_files(place) if ranks.is_first else {})
            found = checkpoints.parse(files)
            checkpoints.restore(found, self.parameters, self.optimizer)
            self.progress = found.progress
        self.trained.round()
        self.gradients.use(self.progress.micro_batch_tokens, self.progress.activations)
        self.surroundings.resumed(self.progress.step)

    def _profiled_step(self) -> None:
        """A step, measured by the profiler if there is one."""
        profiler = self.surroundings.profiler
        if profiler is None or profiler.is_done:
            self._step()
        else:
            weight = next(p for p in self.model.base.parameters() if p.is_floating_point())
            profiler.run(self._step, self.model.device, weight.dtype)

    def _step(self) -> dict[str, float]:
        """One optimizer update; returns what it computed."""
        started = time.perf_counter()
        step = self.progress.step
        chosen = self.plan.examples_of(step)
        reserved = [] if self.optimizer.state else reserve_moments(self.parameters.values())
        tally, squeezed = self.gradients.of_step(chosen, hash((self.training.seed, step)))
        del reserved
        self._note(squeezed)
        norm = whole(
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.training.max_grad_norm)
        ).item()
        if not (math.isfinite(tally.loss) and math.isfinite(norm)):
            raise TrainingError(
                f"the loss is {tally.loss} and the gradient's norm {norm}",
                where=f"step {step + 1}",
                advice="lower training.learning_rate; the last checkpoint is untouched",
            )
        rate = settled(self.training.learning_rate) * learning_rate_factor(
            step, self.plan.num_steps, self.training.warmup_ratio, self.training.schedule
        )
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = rate
        with record_function("luthier: optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.trained.round()
        if step + 1 < self.plan.num_steps:
            self.gradients.prepare_step(self.plan.examples_of(step + 1))
        self.progress = replace(self.progress, step=step + 1)
        done = StepDone(
            step + 1,
            self.plan.num_steps,
            tally.loss,
            rate,
            norm,
            tally.num_tokens,
            sum(self.examples[i].num_supervised for i in chosen),
            time.perf_counter() - started,
            self.surroundings.memory(),
            tally.watched,
        )
        self.surroundings.observe(done)
        known = [p for p in zip(sorted(chosen), tally.each, strict=True) if math.isfinite(p[1])]
        if known:
            rows, losses = zip(*known, strict=True)
            self.surroundings.observe(RowsLearnt(step + 1, rows, losses))
        return {
            "seconds": done.seconds,
            "num_tokens": done.num_tokens,
            "num_supervised": done.num_supervised,
            "num_computed": tally.num_computed,
            "num_filler": tally.num_filler,
        }

    def _note(self, squeezed: list[Squeezed]) -> None:
        """Remember what memory allowed, so that a resumed run computes alike, and tell it."""
        for event in squeezed:
            self.progress = replace(
                self.progress,
                micro_batch_tokens=event.micro_batch_tokens,
                activations=event.activations,
            )
            self.surroundings.observe(event)

    def _validate(self) -> None:
        if self.surroundings.validate is None:
            return
        self.model.network.eval()
        measured = self.surroundings.validate()
        loss = measured.loss
        self.model.network.train()
        progress = self.progress
        if not math.isfinite(loss):
            raise TrainingError(
                f"the validation loss is {loss}",
                where=f"step {progress.step}",
                advice="lower training.learning_rate; the last checkpoint is untouched",
            )
        is_best = progress.best_loss is None or loss < progress.best_loss
        if is_best:
            progress = replace(
                progress,
                best_loss=loss,
                best_step=progress.step,
                best_sha256=self._keep_weights(),
                num_worse=0,
            )
        else:
            progress = replace(progress, num_worse=progress.num_worse + 1)
        is_over = progress.num_worse >= settled(self.training.patience)
        self.progress = replace(progress, stopped_early=is_over)
        self.surroundings.observe(Validated(progress.step, loss, is_best, measured.watched))

    def _keep_weights(self) -> str:
        """Write the weights as the best; the hash of their file, known to all ranks."""
        weights = {name: whole(weight) for name, weight in self.parameters.items()}
        digest = ""
        if self.ranks.is_first:
            place = checkpoints.best_weights(self.surroundings.folder, self.progress.step)
            digest = checkpoints.write_weights(place, weights)
        return self.ranks.tell(digest)

    def _save(self) -> None:
        folder = self.surroundings.folder
        if self.is_sharded:
            save_sharded(folder, self.progress, self.parameters, self.optimizer, self.ranks)
        elif self.ranks.is_first:
            checkpoints.save_checkpoint(folder, self.progress, self.parameters, self.optimizer)
        if self.ranks.is_first:
            checkpoints.remove_old_best(folder)
        self.surroundings.observe(Saved(self.progress.step))

    def _load_best(self) -> None:
        """Take the best weights; only the first rank needs them, to keep and to evaluate them."""
        if self.progress.best_loss is not None and (self.ranks.is_first or self.is_sharded):
            place = checkpoints.best_weights(self.surroundings.folder, self.progress.best_step)
            checkpoints.read_weights(place, self.parameters, self.progress.best_sha256)
            self.trained.round()
