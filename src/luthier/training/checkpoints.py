"""Everything needed to go on as if nothing had happened, written all or not at all.

A checkpoint is a folder `step-00000120` with `trained.safetensors` (trained weights),
`optimizer.safetensors` (AdamW's moments), `state.json` (step, best validation loss, recipe hash)
and `sha256.json` (hashes of the others, checked on reading). It is written beside its place and
renamed into it, so a process killed at any moment leaves complete checkpoints only. Data position
and random numbers follow from the step number (`batches`, `gradients`).
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from luthier.errors import CheckpointError
from luthier.models.sharding import part_like
from luthier.training.memory import Activations

PREFIX, BEST = "step-", "best-"
HASHES = "sha256.json"
FILES = ("trained.safetensors", "optimizer.safetensors", "state.json")
SHARED = ("/qmap1", "/qmap2")
KEPT = 2
"""Newest checkpoints kept; the older ones are removed once a newer one is complete."""


Files = dict[str, bytes]
"""Name -> content of a checkpoint's files."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, besides its tensors."""

    step: int
    """Optimizer updates done."""
    recipe_hash: str
    best_loss: float | None = None
    best_step: int = 0
    best_sha256: str = ""
    """Of the file of the best weights."""
    num_worse: int = 0
    """Validation losses in a row that were not better than the best."""
    stopped_early: bool = False
    micro_batch_tokens: int = 0
    """Tokens computed at once, as memory allowed."""
    activations: Activations = "keep"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A restored checkpoint."""

    progress: Progress
    weights: dict[str, Tensor]
    moments: dict[str, Tensor]


def save_checkpoint(
    folder: Path,
    progress: Progress,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Write a checkpoint into `folder` and remove outdated ones; returns its path.

    Raises CheckpointError when it cannot be written, leaving the earlier ones as they were.
    """
    place = folder / f"{PREFIX}{progress.step:08d}"
    tensors = {
        "trained.safetensors": {n: p.detach().cpu() for n, p in parameters.items()},
        "optimizer.safetensors": _moments(parameters, optimizer),
    }
    write_folder(place, tensors, {"state.json": json.dumps(asdict(progress), indent=1)})
    for old in list_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def write_folder(place: Path, tensors: dict[str, dict[str, Tensor]], texts: dict[str, str]) -> None:
    """Write files and their hashes into a new folder that appears complete or not at all."""
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for name, weights in tensors.items():
            save_file(weights, unfinished / name)
        for name, text in texts.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        hashes = {file.name: hash_file(file) for file in sorted(unfinished.iterdir())}
        (unfinished / HASHES).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        put_in_place(unfinished, place)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise unwritable(place, error) from error


def put_in_place(unfinished: Path, place: Path) -> None:
    """Give a complete folder its name, once what is in it is on the disk."""
    for file in unfinished.iterdir():
        _make_durable(file)
    shutil.rmtree(place, ignore_errors=True)
    unfinished.rename(place)
    _make_durable(place.parent)


def _make_durable(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def best_weights(folder: Path, step: int) -> Path:
    """Where the weights are that were the best after a step."""
    return folder / f"{BEST}{step:08d}.safetensors"


def remove_old_best(folder: Path) -> None:
    """Remove best weights that no checkpoint speaks of any more."""
    wanted = {_best_named(place) for place in list_checkpoints(folder)}
    for file in folder.glob(f"{BEST}*.safetensors"):
        if file not in wanted:
            file.unlink(missing_ok=True)


def _best_named(place: Path) -> Path | None:
    """The best weights that a checkpoint names; None when it is damaged and nobody can tell."""
    try:
        state = json.loads((place / "state.json").read_text())
        return best_weights(place.parent, state["best_step"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_weights(path: Path, weights: dict[str, Tensor]) -> str:
    """Write weights to one file, atomically; returns its SHA-256.

    Raises CheckpointError when it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({n: w.detach().cpu() for n, w in weights.items()}, unfinished)
        digest = hash_file(unfinished)
        _make_durable(unfinished)
        unfinished.replace(path)
        _make_durable(path.parent)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    return digest


def read_weights(path: Path, parameters: dict[str, torch.nn.Parameter], sha256: str) -> None:
    """Copy the weights of a file into parameters of the same names.

    Raises CheckpointError when the file is not as it was written.
    """
    try:
        is_whole = hash_file(path) == sha256
        weights = load_file(path) if is_whole else {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(path)) from error
    if not is_whole:
        raise CheckpointError(
            "the best weights are not as they were written: the disk changed them, or somebody did",
            where=str(path),
            advice="restore the file from a copy, or remove the checkpoints to train again",
        )
    load_weights(weights, parameters)


def unwritable(place: Path, error: BaseException) -> CheckpointError:
    """What is raised when a checkpoint cannot be written."""
    said = re.search(r"I/O error: (.+) \(os error", str(error))
    reason = error.strerror if isinstance(error, OSError) else said[1] if said else error
    return CheckpointError(
        f"cannot be written: {reason}",
        where=str(place),
        advice="free some disk space and run the same command again; it resumes",
    )


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def remove_unfinished(folder: Path) -> None:
    """Remove what processes killed while writing left behind."""
    for leftover in folder.glob(".*.unfinished"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def find_newest(folder: Path, recipe_hash: str) -> tuple[Path | None, list[CheckpointError]]:
    """The newest whole checkpoint in `folder`, and what is wrong with newer ones.

    None when there is no checkpoint. Raises CheckpointError when it belongs to another recipe, or
    when there are some and none is whole.
    """
    damaged: list[CheckpointError] = []
    for place in reversed(list_checkpoints(folder)):
        try:
            _check_whole(place)
        except CheckpointError as error:
            damaged.append(error)
            continue
        if json.loads((place / "state.json").read_text())["recipe_hash"] != recipe_hash:
            raise CheckpointError(
                "belongs to another recipe", where=str(place), advice="start a new run"
            )
        return place, damaged
    if damaged:
        raise CheckpointError(
            "no checkpoint is whole",
            where=str(folder),
            advice="remove them to train from the start, or restore them from a copy",
            details=[str(error) for error in damaged],
        )
    return None, []


def _check_whole(place: Path) -> None:
    """Raise CheckpointError unless a checkpoint's files, and the best weights, are as written."""
    try:
        hashes = json.loads((place / HASHES).read_text())
        changed = [name for name, digest in hashes.items() if hash_file(place / name) != digest]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot be read: {error}", where=str(place)) from error
    if changed or "state.json" not in hashes:
        raise CheckpointError(
            f"{', '.join(changed) or HASHES} is not as it was written: the disk changed it, "
            "or somebody did",
            where=str(place),
        )
    state = json.loads((place / "state.json").read_text())
    best = best_weights(place.parent, state["best_step"])
    if state["best_sha256"] and not (best.is_file() and hash_file(best) == state["best_sha256"]):
        raise CheckpointError(
            f"names the best weights {best.name}, which are not as they were written",
            where=str(place),
        )


def read_files(place: Path) -> Files:
    """A checkpoint's files."""
    return {name: (place / name).read_bytes() for name in FILES}


def parse(files: Files) -> Checkpoint:
    """The checkpoint that files hold."""
    state = json.loads(files["state.json"])
    return Checkpoint(
        Progress(**state),
        load(files["trained.safetensors"]),
        load(files["optimizer.safetensors"]),
    )


def restore(
    checkpoint: Checkpoint,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put weights and moments back where they were."""
    load_weights(checkpoint.weights, parameters)
    for key, value in checkpoint.moments.items():
        name, _, kind = key.rpartition("/")
        parameter = parameters[name]
        if kind == "step":  # torch's AdamW counts in a tensor, the 8-bit one in a number
            is_torch = isinstance(optimizer, torch.optim.AdamW)
            optimizer.state[parameter][kind] = (
                value.to(parameter.device) if is_torch else int(value)
            )
        else:
            optimizer.state[parameter][kind] = value.to(parameter.device)


def load_weights(weights: dict[str, Tensor], parameters: dict[str, torch.nn.Parameter]) -> None:
    """Copy weights into parameters of the same names; CheckpointError when they differ."""
    different = sorted(set(weights) ^ set(parameters))
    if different:
        raise CheckpointError(f"holds other weights than the model, such as {different[0]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(part_like(weights[name], parameter))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _moments(
    parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    found = {
        f"{name}/{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    # bitsandbytes gives all parameters one table of what its 8 bits mean, and a file of
    # safetensors holds no tensor twice; the tables are small, the moments are not copied.
    return {k: x.clone() if k.endswith(SHARED) else x for k, x in found.items()}
