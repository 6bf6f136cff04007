"""The same path on a Ray cluster: its scheduler places the processes, and starts them again.

Each worker runs `tune` as a process of one training. When one dies, Ray starts all of them anew,
and the run goes on from its last checkpoint. The workspace must be a folder that all nodes see.
"""

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier.errors import ConfigError, missing_package
from luthier.pipeline.events import Event
from luthier.pipeline.preparing import prepare
from luthier.pipeline.tuning import Tuned, tune
from luthier.recipe import ReadRecipe, Recipe
from luthier.runs import Workspace, write_atomically

Observer = Callable[[], Callable[[Event], None]]

MAX_FAILURES = 3
"""Times that lost workers are started again before the run is given up."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to train, and by how many."""

    address: str
    """As `ray start` prints it, "auto" for the cluster at hand, or "local" for this machine."""
    workers: int
    cores: int = 1
    """CPU cores of each worker."""


def tune_on_ray(read: ReadRecipe, cluster: Cluster, make_observer: Observer) -> Tuned:
    """Go the whole path on a cluster. Raises ConfigError when Ray is missing or cannot be reached.

    `make_observer` is called in the first worker and gives what its events are shown to. What a
    worker raises comes back as Ray's error, with the worker's own inside.
    """
    ray = _ray()
    read = replace(read, recipe=_with_whole_paths(read.recipe))
    try:
        _knock(cluster.address)
        ray.init(
            address=None if cluster.address == "local" else cluster.address,
            logging_level="warning",
            runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster can be reached: {error}",
            where=f"--ray {cluster.address}",
            accepted="the address that ray start prints, auto, or local",
        ) from error
    note = read.recipe.runtime.workspace / "ray" / f"{uuid.uuid4().hex}.run"
    try:
        trainer = ray.train.torch.TorchTrainer(
            _work,
            train_loop_config={"read": read, "make_observer": make_observer, "note": note},
            scaling_config=ray.train.ScalingConfig(
                num_workers=cluster.workers,
                use_gpu=read.recipe.runtime.device == "cuda",
                resources_per_worker={"CPU": cluster.cores},
            ),
            run_config=ray.train.RunConfig(
                storage_path=str(read.recipe.runtime.workspace / "ray"),
                failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            ),
        )
        trainer.fit()
    finally:
        ray.shutdown()
    workspace = Workspace.open(read.recipe.runtime.workspace)
    try:
        run = workspace.find(note.read_text("utf-8"))
    finally:
        workspace.close()
    return Tuned(run, is_finished=run.record.status == "finished")


def _work(settings: dict[str, Any]) -> None:
    """One worker's part; Ray has already joined it with the others."""
    ray = _ray()
    context = ray.train.get_context()
    os.environ["LOCAL_WORLD_SIZE"] = str(context.get_local_world_size())
    is_first = context.get_world_rank() == 0
    observe = settings["make_observer"]() if is_first else lambda event: None
    tuned = tune(prepare(settings["read"]), observe)
    if is_first:
        write_atomically(settings["note"], tuned.run.id)


def _knock(address: str) -> None:
    """Raise OSError when nobody answers at host:port; Ray itself would wait for minutes."""
    host, found, port = address.rpartition(":")
    if found and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=5).close()


def _with_whole_paths(recipe: Recipe) -> Recipe:
    """The recipe with paths that mean the same in any working directory."""
    content = recipe.model_dump(mode="json")
    for section, field in (
        ("data", "train"), ("data", "validation"), ("data", "test"), ("model", "chat_template"),
        ("runtime", "workspace"), ("runtime", "cache"),
    ):  # fmt: skip
        value = content[section][field]
        if value not in (None, "auto"):
            content[section][field] = str(Path(value).expanduser().resolve())
    if Path(content["model"]["source"]).expanduser().exists():
        content["model"]["source"] = str(Path(content["model"]["source"]).expanduser().resolve())
    return Recipe.model_validate(content)


def _ray() -> Any:
    try:
        import ray
        import ray.train.torch
    except ImportError as error:
        raise missing_package("ray", "ray", where="--ray") from error
    return ray
