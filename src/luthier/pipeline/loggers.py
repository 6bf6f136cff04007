"""What a run measures, sent to experiment trackers through their own libraries.

A logger is a class with `log` and `finish`; a new one is entered in LOGGERS. Each is an optional
package. Where a tracker keeps its data is its own affair (MLFLOW_TRACKING_URI, WANDB_MODE,
TRACKIO_DIR, ...); what has no such setting goes into the run's folder.
"""

import os
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Protocol

from luthier.errors import missing_package
from luthier.evaluation import SystemResult
from luthier.runs import Run
from luthier.training import StepDone, Validated

PROJECT = "luthier"


class Logger(Protocol):
    """Where numbers of a run go."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Take numbers in, by name, at an optimizer step."""
        ...

    def finish(self, *, is_over: bool) -> None:
        """The run is over, or broken off and may go on later."""
        ...


class _TensorBoard:
    """Event files in the run's folder, for `tensorboard --logdir`."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        self._writer = _package("tensorboard.summary").Writer(str(run.path("tensorboard")))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step=step)
        self._writer.flush()

    def finish(self, *, is_over: bool) -> None:
        self._writer.close()


class _MLflow:
    """A run in the tracking server that MLflow is set to, or in a database beside the runs."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        mlflow = _package("mlflow")
        folder = run.folder.parent.parent.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        known = self._client.search_runs([experiment], f"tags.luthier_run = '{run.id}'")
        tags = {"luthier_run": run.id}
        self._run = (
            known[0] if known else self._client.create_run(experiment, tags=tags, run_name=run.id)
        )
        if known:
            self._client.update_run(self._run.info.run_id, status="RUNNING")
        else:
            for name, value in settings.items():
                self._client.log_param(self._run.info.run_id, name, str(value)[:500])

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        for name, value in numbers.items():
            self._client.log_metric(self._run.info.run_id, name, value, timestamp=now, step=step)

    def finish(self, *, is_over: bool) -> None:
        self._client.set_terminated(self._run.info.run_id, "FINISHED" if is_over else "KILLED")


class _WandB:
    """A run in Weights & Biases; WANDB_MODE=offline keeps it in the run's folder."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        wandb = _package("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=run.id, id=run.id,
            dir=str(run.folder), resume="allow", config=dict(settings),
            settings=wandb.Settings(silent=True),
        )  # fmt: skip

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def finish(self, *, is_over: bool) -> None:
        self._run.finish()


class _Trackio:
    """A run in trackio's local database, or in the space it is set to."""

    def __init__(self, run: Run, settings: Mapping[str, Any]) -> None:
        self._trackio = _package("trackio")
        self._trackio.init(
            project=PROJECT, name=run.id, resume="allow", config=dict(settings), embed=False
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(numbers), step=step)

    def finish(self, *, is_over: bool) -> None:
        self._trackio.finish()


LOGGERS: Mapping[str, Callable[[Run, Mapping[str, Any]], Logger]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WandB,
    "trackio": _Trackio,
}
"""Name in the recipe -> what opens the logger for a run."""


def open_loggers(names: tuple[str, ...], run: Run, settings: Mapping[str, Any]) -> list[Logger]:
    """The loggers of a recipe. Raises ConfigError when a package is not installed."""
    return [LOGGERS[name](run, settings) for name in names]


def numbers_of(event: object) -> tuple[dict[str, float], int] | None:
    """What an event says in numbers by name, and at which step; None for events that say none."""
    if isinstance(event, StepDone):
        numbers = {
            "train/loss": event.loss,
            "train/learning_rate": event.learning_rate,
            "train/grad_norm": event.grad_norm,
            "train/tokens_per_second": event.num_tokens / max(event.seconds, 1e-9),
            "train/memory_bytes": float(event.memory_bytes),
        }
        return numbers | {f"train/{k}": v for k, v in event.watched.items()}, event.step
    if isinstance(event, Validated):
        watched = {f"validation/{name}": value for name, value in event.watched.items()}
        return {"validation/loss": event.loss, **watched}, event.step
    return None


def numbers_of_systems(systems: list[SystemResult]) -> dict[str, float]:
    """Every system's metrics by name."""
    return {
        f"test/{system.name}/{metric}": estimate.value
        for system in systems
        for metric, estimate in system.estimates.items()
        if estimate.value is not None
    }


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        accepted = ", ".join(LOGGERS)
        raise missing_package(
            package, package, where="runtime.loggers", accepted=accepted
        ) from error
