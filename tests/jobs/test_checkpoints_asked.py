"""Checkpoints of models all of whose weights learn are answered from as they stand."""

import queue
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from luthier.errors import JobError
from luthier.pipeline import Engines
from luthier.pipeline.engines import Choosing, End, Piece, Source, Told
from luthier.recipe import Runtime
from own_service import QUICK, Service, chats, work_until

RUNTIME = Runtime.model_validate({"device": "cpu", "dtype": "float32"})
PROMPT = [5, 9, 12, 40, 17, 33]


@pytest.mark.parametrize("tuning", [{"kind": "full"}, {"kind": "last-layers", "count": 1}])
def test_a_checkpoint_answers_with_the_weights_it_has(
    tmp_path: Path, tuning: dict[str, object]
) -> None:
    service = Service(tmp_path)
    job = service.create(
        service.upload(chats(24)), settings={"recipe": QUICK | {"tuning": tuning}},
    )  # fmt: skip
    work_until(service, service.worker(), job.id, "succeeded", "failed")
    rows = {row.id: row for row in service.models.list()}
    checkpoints = [row for name, row in rows.items() if "ckpt" in name]
    engines = Engines(RUNTIME, slots=2, max_bases=4)
    found = [answer(engines, Source(str(service.model()), service.models.folder(row)))
             for row in checkpoints]  # fmt: skip
    assert found == [
        written(service.model(), service.models.folder(row) / "trained.safetensors")
        for row in checkpoints
    ]
    assert len(engines._bases) == len(checkpoints) > 0
    engines.close()
    with pytest.raises(JobError, match="is a checkpoint"):
        Engines(RUNTIME, kind="llama.cpp").open(
            Source(str(service.model()), service.models.folder(checkpoints[0]))
        )


def answer(engines: Engines, source: Source) -> list[int]:
    told: queue.SimpleQueue[Told] = queue.SimpleQueue()
    opened = engines.open(source)
    opened.ask(PROMPT, told.put, max_new_tokens=12, choosing=Choosing(temperature=0))
    ids = []
    while isinstance(piece := told.get(timeout=60), Piece):
        ids.append(piece.id)
    assert isinstance(piece, End)
    return ids


def written(base: Path, weights: Path) -> list[int]:
    """By transformers alone."""
    network: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    result = network.load_state_dict(load_file(weights), strict=False)
    assert not result.unexpected_keys
    network.tie_weights()
    stops = network.generation_config.eos_token_id
    ids = network.generate(
        torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, pad_token_id=0
    )[0, len(PROMPT) :].tolist()
    stops = stops if isinstance(stops, list) else [stops]
    return [token for token in ids if token not in stops and token != 0]
