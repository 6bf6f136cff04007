"""Layers that are given the same input give the same computed at once as one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor

from luthier.models import load_adapter, load_model, make_trainable, pack, save_adapter
from luthier.models.adapters import LeanLoraLinear
from luthier.recipe import LoRA
from tiny import write_model

CPU = torch.device("cpu")
Layers = tuple[LeanLoraLinear, LeanLoraLinear, LeanLoraLinear]


WIDTH = 32


def attention_of(network: torch.nn.Module) -> Any:
    return next(module for module in network.modules() if hasattr(module, "q_proj"))


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    model = load_model(write_model(tmp_path), dtype=torch.float32, device=CPU)
    make_trainable(model, LoRA.model_validate({"rank": 4}), seed=0)
    block = attention_of(model.network)
    assert block.q_proj.in_features == WIDTH
    for layer in (block.q_proj, block.k_proj, block.v_proj):
        torch.nn.init.normal_(layer.lora_B["default"].weight)
    return block.q_proj, block.k_proj, block.v_proj


def results(layers: Layers, inputs: list[Tensor]) -> list[Tensor]:
    """Outputs, and gradients of the adapters and of the inputs."""
    outputs = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
    learnt = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    slopes = [torch.linspace(-1, 1, o.numel()).view_as(o) for o in outputs]
    unique = list({id(x): x for x in inputs}.values())
    return [*outputs, *torch.autograd.grad(outputs, [*learnt, *unique], slopes)]


def alone(layers: Layers) -> Layers:
    for layer in layers:
        layer.joint = None
    return layers


def assert_alike(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_one_input_is_multiplied_once(layers: Layers) -> None:
    x = torch.randn(1, 7, WIDTH, requires_grad=True)
    found = results(layers, [x, x, x])
    # Each is a view of what one function gave.
    given = [layer(x).grad_fn for layer in layers]
    functions = [view.next_functions[0][0] for view in given if view is not None]
    assert functions[0] is functions[1] is functions[2] is not None
    assert_alike(found, results(alone(layers), [x, x, x]))


def test_layers_given_different_inputs_are_computed_alone(layers: Layers) -> None:
    xs = [torch.randn(1, 7, WIDTH, requires_grad=True) for _ in range(3)]
    for _ in range(2):
        found = results(layers, xs)
    assert layers[0].joint is not None
    assert layers[0].joint.output(layers[0], xs[0]) is None, "they are not computed in vain again"
    assert_alike(found, results(alone(layers), xs))


def test_a_call_that_was_broken_off_does_no_harm(layers: Layers) -> None:
    x, other = (torch.randn(1, 7, WIDTH, requires_grad=True) for _ in range(2))
    layers[0](x)  # and the others are not asked
    found = results(layers, [other] * 3)
    assert layers[0].joint is not None
    assert layers[0].joint.output(layers[0], x) is not None, "they go on together"
    assert_alike(found, results(alone(layers), [other] * 3))


def test_without_gradients_each_is_computed_alone(layers: Layers) -> None:
    x = torch.randn(1, 7, WIDTH)
    with torch.no_grad():
        found = [layer(x) for layer in layers]
    assert_alike(found, [layer(x).detach() for layer in alone(layers)])


def test_a_loaded_adapter_is_joined_too(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "base")
    model = load_model(folder, dtype=torch.float32, device=CPU)
    make_trainable(model, LoRA.model_validate({"rank": 4, "targets": ["q_proj", "v_proj"]}), seed=0)
    save_adapter(model, tmp_path / "adapter")
    again = load_model(folder, dtype=torch.float32, device=CPU)
    network = load_adapter(again.base, tmp_path / "adapter", is_trainable=True)
    block = attention_of(network)
    assert block.q_proj.joint is block.v_proj.joint is not None
    assert not hasattr(block.k_proj, "joint")


@pytest.mark.parametrize("targets", [["q_proj", "k_proj", "v_proj"], "all-linear"])
def test_what_layers_give_can_be_changed_in_place(
    targets: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OLMo does, which clamps queries, keys and values."""
    folder = write_model(tmp_path, "olmo", clip_qkv=0.5)
    model = load_model(folder, dtype=torch.float32, device=CPU)
    make_trainable(model, LoRA.model_validate({"rank": 4, "targets": targets}), seed=0)
    learnt = [p for p in model.network.parameters() if p.requires_grad]
    batch = pack([[5, 6, 7, 8, 9]], [[5, 6, 7, 8, 9]])
    found = torch.autograd.grad(model.loss(batch).total, learnt)
    monkeypatch.setattr(LeanLoraLinear, "forward", LoraLinear.forward)
    monkeypatch.setattr(LeanLoraLinear, "adapted", lambda self, dtype: None)
    expected = torch.autograd.grad(model.loss(batch).total, learnt)
    assert_alike(list(found), list(expected))
