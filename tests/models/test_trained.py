"""Weights that learn are float32, and start from what is stored, not from its rounding."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from luthier.models import LanguageModel, TrainedWeights, load_model, make_trainable
from luthier.recipe import Full
from tiny import write_model


@pytest.fixture
def model(tmp_path: Path) -> LanguageModel:
    folder = write_model(tmp_path, "llama")
    loaded = load_model(folder, dtype=torch.bfloat16, device=torch.device("cpu"))
    make_trainable(loaded, Full(), seed=0)
    return loaded


def test_masters_are_the_stored_values(model: LanguageModel) -> None:
    assert model.stored is not None
    stored = load_file(model.stored / "model.safetensors")
    trained = TrainedWeights(model.network, model.stored)
    rounded = dict(model.network.named_parameters())
    assert trained.masters.keys() <= stored.keys()
    for name, master in trained.masters.items():
        assert torch.equal(master, stored[name])
        assert torch.equal(master.to(torch.bfloat16), rounded[name])
    assert any(not torch.equal(m, rounded[n].float()) for n, m in trained.masters.items())


def test_weights_that_are_not_what_is_stored_stay(model: LanguageModel) -> None:
    """An adapter of an earlier run was merged, say."""
    name, weight = next(iter(model.network.named_parameters()))
    with torch.no_grad():
        weight.add_(1)
    trained = TrainedWeights(model.network, model.stored)
    assert torch.equal(trained.masters[name], weight.float())
