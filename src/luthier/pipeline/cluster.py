"""The same path on a Ray cluster: its scheduler places the processes, and starts them again.

Each worker runs `tune` as a process of one training. When one dies, Ray starts all of them anew,
as many as there is room for, and the run goes on from its last checkpoint. Data and local models
must be at the same place on all nodes, and so must the workspace, unless there is a storage that
runs are copied to and from.
"""

import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier.errors import ConfigError, LuthierError, missing_package
from luthier.pipeline.board import Board, Say, asks, listening
from luthier.pipeline.events import Event, Ready
from luthier.pipeline.preparing import prepare
from luthier.pipeline.tuning import Tuned, tune
from luthier.recipe import ReadRecipe, Recipe
from luthier.runs import Mirror, Workspace
from luthier.training import Saved, join_ranks
from luthier.training.ranks import TIMEOUT

Observer = Callable[[Say], Callable[[Event], None]]
"""Made in the first worker, of what tells whoever ordered the run a line."""

MAX_FAILURES = 3
"""Times that lost workers are started again before the run is given up."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to train, and by how many."""

    address: str
    """As `ray start` prints it, "auto" for the cluster at hand, or "local" for this machine."""
    workers: tuple[int, int]
    """Fewest and most; between them Ray starts as many as it has room for."""
    cores: int = 1
    """CPU cores of each worker."""
    storage: str = ""
    """URL that runs are copied to, for nodes that share no disk."""


def tune_on_ray(
    read: ReadRecipe,
    cluster: Cluster,
    make_observer: Observer,
    hear: Say = lambda line: None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Tuned:
    """Go the whole path on a cluster. Raises ConfigError when Ray is missing or cannot be reached.

    `make_observer` is called in the first worker and gives what its events are shown to; what it
    tells is heard here. Where `is_interrupted` answers true the run is saved and ends unfinished. A
    LuthierError of a worker is raised here; anything else comes back as Ray's error.
    """
    ray = _ray()
    read = replace(read, recipe=_with_whole_paths(read.recipe))
    workspace = read.recipe.runtime.workspace
    place = cluster.storage or str(workspace / "ray")
    mirror = Mirror(place, workspace)
    if cluster.storage and read.recipe.runtime.sharding != "none":
        raise ConfigError(
            "copies whole checkpoints, and each process of a sharded run writes a part",
            where=f"--storage {cluster.storage}",
            advice="use a workspace that all nodes see, or runtime.sharding: none",
        )
    _connect(ray, cluster.address)
    note = f"{uuid.uuid4().hex}.run"
    board = ray.remote(num_cpus=0)(Board).remote()
    try:
        settings = {
            "read": read, "make_observer": make_observer, "note": note, "place": place,
            "copies": bool(cluster.storage), "board": board,
        }  # fmt: skip
        trainer = _trainer(ray, cluster, settings)
        with listening(ray, board, hear, is_interrupted):
            trainer.fit()
        result = ray.get(board.result.remote())
        if isinstance(result, LuthierError):
            raise result
    except ray.train.TrainingFailedError as error:
        said = _said_by_worker(error)
        if said is None:
            raise
        raise said from error
    finally:
        ray.shutdown()
    if cluster.storage:
        mirror.pull()
    opened = Workspace.open(workspace)
    try:
        opened.rebuild()
        run = opened.find(mirror.read(note))
    finally:
        opened.close()
    return Tuned(run, run.record.status == "finished", result)


def _trainer(ray: Any, cluster: Cluster, settings: dict[str, Any]) -> Any:
    fewest, most = cluster.workers
    return ray.train.torch.TorchTrainer(
        _work,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=fewest if fewest == most else (fewest, most),
            use_gpu=settings["read"].recipe.runtime.device == "cuda",
            resources_per_worker={"CPU": cluster.cores},
        ),
        # Ray joins the workers, and would have them wait half an hour for the first one.
        torch_config=ray.train.torch.TorchConfig(timeout_s=int(TIMEOUT.total_seconds())),
        run_config=ray.train.RunConfig(
            storage_path=settings["place"],
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )


def _connect(ray: Any, address: str) -> None:
    """Join the cluster, or start one on this machine. Raises ConfigError when none answers."""
    # Ray puts its own in place of ours, which let a run save.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _knock(address)
        ray.init(
            address=None if address == "local" else address,
            logging_level="warning",
            runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray cluster can be reached: {error}",
            where=f"--ray {address}",
            accepted="the address that ray start prints, auto, or local",
        ) from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _said_by_worker(error: Exception) -> LuthierError | None:
    """The LuthierError that a worker ended with, of the lowest rank."""
    failures = dict(getattr(error, "worker_failures", {}))
    for _, failure in sorted(failures.items()):
        # Ray wraps an error in one of its own that also holds the traceback.
        for found in (failure, *failure.args):
            if isinstance(found, LuthierError):
                return found
    return None


def _work(settings: dict[str, Any]) -> None:
    """One worker's part; Ray has already joined it with the others."""
    ray = _ray()
    context = ray.train.get_context()
    os.environ["LOCAL_WORLD_SIZE"] = str(context.get_local_world_size())
    mirror = Mirror(settings["place"], settings["read"].recipe.runtime.workspace)
    if settings["copies"]:
        pull_to_nodes(mirror, context.get_world_rank(), context.get_local_rank())
    if context.get_world_rank() != 0:
        tune(prepare(settings["read"]))
        return
    board = settings["board"]
    observe = settings["make_observer"](lambda line: ray.get(board.tell.remote(line)))
    if settings["copies"]:
        observe = _copying(observe, mirror)
    try:
        tuned = tune(prepare(settings["read"]), observe, asks(ray, board))
    except LuthierError as error:
        if context.get_world_size() > 1:
            raise  # the others wait for this one, and must be ended
        ray.get(board.conclude.remote(error))  # else Ray would try it again, to the same end
        return
    ray.get(board.conclude.remote(tuned.evaluation))
    if settings["copies"]:
        mirror.push(tuned.run.id)
    mirror.write(settings["note"], tuned.run.id)


def pull_to_nodes(mirror: Mirror, rank: int, local_rank: int) -> None:
    """Bring the runs to every node before a process looks for one; all of them must call.

    The first node is served before the others: where they see its disk, nothing is left to fetch.
    """
    wait = join_ranks("cpu").wait
    if rank == 0:
        mirror.pull()
    wait()
    if rank != 0 and local_rank == 0:
        mirror.pull()
    wait()


def _copying(observe: Callable[[Event], None], mirror: Mirror) -> Callable[[Event], None]:
    """Shows events, and copies the run after every checkpoint."""
    runs: list[str] = []

    def observed(event: Event) -> None:
        observe(event)
        if isinstance(event, Ready):
            runs.append(event.run_id)
        elif isinstance(event, Saved):
            mirror.push(runs[-1])

    return observed


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
