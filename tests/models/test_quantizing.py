"""Weights in 4 bits: gradients equal those of the dequantised weights, also after an evaluation."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

from luthier.errors import ConfigError
from luthier.models import (
    LanguageModel,
    load_model,
    make_trainable,
    pack,
    quantizing,
    trained_parameters,
)
from luthier.recipe import LoRA
from tiny import write_model

bitsandbytes = pytest.importorskip("bitsandbytes", reason="the extra luthier[qlora] is missing")

IDS = [[(3 * i) % 200 + 5 for i in range(40)], [(7 * i) % 200 + 5 for i in range(23)]]


def gradients(model: LanguageModel) -> dict[str, torch.Tensor]:
    make_trainable(model, LoRA(rank=4), seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in trained_parameters(model.network).items():
        if "lora_B" in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    with torch.no_grad():
        model.network.eval()
        model.predicting_states(pack(IDS, IDS))  # as a validation between two steps does
    model.network.train()
    model.loss(pack(IDS, IDS)).total.backward()
    found = {}
    for name, parameter in trained_parameters(model.network).items():
        assert parameter.grad is not None
        found[name] = parameter.grad
    return found


def test_gradients_equal_those_of_the_dequantised_weights(tmp_path: Path) -> None:
    folder, cpu = write_model(tmp_path), torch.device("cpu")
    quantized = load_model(folder, dtype=torch.float32, device=cpu, quantize="nf4")
    plain = load_model(folder, dtype=torch.float32, device=cpu)
    layers = dict(quantized.base.named_modules())
    num_quantized = 0
    for name, layer in plain.base.named_modules():
        if isinstance(layer, nn.Linear) and isinstance(layers[name], bitsandbytes.nn.Linear4bit):
            weight = layers[name].weight
            whole = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
            layer.weight.data.copy_(whole)
            num_quantized += 1
    assert num_quantized == 14
    expected = gradients(plain)
    for name, gradient in gradients(quantized).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4)


def test_a_quantised_model_stays_on_the_device_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU, on a machine with a GPU, where transformers would take the GPU."""
    folder, gpu = write_model(tmp_path), torch.device("meta")
    chosen = Bnb4BitHfQuantizer.update_device_map

    def update(self: Bnb4BitHfQuantizer, device_map: dict[str, torch.device] | None) -> object:
        return chosen(self, device_map or {"": gpu})  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Bnb4BitHfQuantizer, "update_device_map", update)
    cpu = torch.device("cpu")
    model = load_model(folder, dtype=torch.float32, device=cpu, quantize="nf4")
    assert {p.device for p in model.base.parameters()} == {cpu}


def test_without_bitsandbytes_the_recipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizing, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"tuning.quantize: bitsandbytes is not installed.*luthier\[qlora\]"
    ):
        load_model(
            write_model(tmp_path), dtype=torch.float32, device=torch.device("cpu"), quantize="nf4"
        )
