"""Checkpoints that every process writes its part of, and any number of processes reads.

Written through torch.distributed.checkpoint as safetensors, beside `state.json` and `sha256.json`
as in `checkpoints`, into a folder that all processes see.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from luthier.training.checkpoints import (
    HASHES,
    KEPT,
    PREFIX,
    Progress,
    hash_file,
    list_checkpoints,
    put_in_place,
    unwritable,
)
from luthier.training.ranks import Ranks

MOMENTS = ("exp_avg", "exp_avg_sq")


def save_sharded(
    folder: Path,
    progress: Progress,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    ranks: Ranks,
) -> None:
    """Write a checkpoint, each rank its part, and remove outdated ones.

    Raises CheckpointError when it cannot be written.
    """
    place = folder / f"{PREFIX}{progress.step:08d}"
    unfinished = place.with_name(f".{place.name}.sharded.unfinished")
    try:
        if ranks.is_first:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
        ranks.wait()
        writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
        save(_tensors(parameters, optimizer), storage_writer=writer)
        ranks.wait()
        if ranks.is_first:
            (unfinished / "state.json").write_text(json.dumps(asdict(progress), indent=1))
            hashes = {file.name: hash_file(file) for file in sorted(unfinished.iterdir())}
            (unfinished / HASHES).write_text(json.dumps(hashes, indent=1))
            put_in_place(unfinished, place)
            for old in list_checkpoints(folder)[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        ranks.wait()
    except (OSError, CheckpointException) as error:
        if ranks.is_first:
            shutil.rmtree(unfinished, ignore_errors=True)
        cause: BaseException = error
        if isinstance(error, CheckpointException):  # torch's, no Exception: rank -> what it met
            cause = next(iter(error.failures.values()))[0]
        raise unwritable(place, cause) from error


def load_sharded(
    place: Path,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> Progress:
    """Put weights and moments of a checkpoint back, each rank its part; returns its progress."""
    progress = Progress(**json.loads((place / "state.json").read_text()))
    for parameter in parameters.values():
        state = {kind: torch.zeros_like(parameter) for kind in MOMENTS}
        steps = torch.tensor(float(progress.step), device=parameter.device)
        optimizer.state[parameter] = {"step": steps, **state} if progress.step else {}
    tensors = _tensors(parameters, optimizer)
    load(tensors, storage_reader=HuggingFaceStorageReader(str(place)))
    return progress


def _tensors(
    parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Weights and moments by name; the tensors themselves, so that loading fills them."""
    found: dict[str, Tensor] = {name: p.detach() for name, p in parameters.items()}
    for name, parameter in parameters.items():
        state = optimizer.state.get(parameter, {})
        found |= {f"{name}/{kind}": state[kind] for kind in MOMENTS if kind in state}
    return found
