"""The written-out gradients equal autograd's, and only modules with the same result are changed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from luthier.models import lean, probe_devices
from tiny import FAMILIES, write_model

PRECISIONS = {torch.float32: 1e-5, torch.bfloat16: 2**-6}


@pytest.fixture(params=[False, True], ids=["plain", "compiled"])
def compiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """The functions as they stand, and as compiled kernels."""
    if request.param and not probe_devices().can_compile:
        pytest.skip("there is no compiler")
    lean.compile_kernels(compiled=request.param)
    yield
    lean.compile_kernels(compiled=False)


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    slope = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return list(torch.autograd.grad(output, inputs, slope))


def assert_same(found: Tensor, expected: Tensor, inputs: list[Tensor], tolerance: float) -> None:
    pairs = zip(
        [found, *gradients(found, inputs)], [expected, *gradients(expected, inputs)], strict=True
    )
    for a, b in pairs:
        assert a.dtype == b.dtype
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance * float(b.detach().abs().max())
        )


@pytest.fixture(params=PRECISIONS, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    torch.manual_seed(0)
    found: torch.dtype = request.param
    return found


@pytest.mark.usefixtures("compiled")
def test_the_norm_equals_autograd(dtype: torch.dtype) -> None:
    x = (torch.randn(2, 7, 24) * 3).to(dtype).requires_grad_()
    weight = torch.randn(24).to(dtype)
    wide = x.float()
    plain = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(dtype) * weight
    assert_same(lean.rms_norm(x, weight, 1e-5), plain, [x], PRECISIONS[dtype])


@pytest.mark.usefixtures("compiled")
def test_the_gated_activation_equals_autograd(dtype: torch.dtype) -> None:
    gate, up = ((torch.randn(2, 7, 24) * 3).to(dtype).requires_grad_() for _ in range(2))
    plain = functional.silu(gate) * up
    assert_same(lean.silu_product(gate, up), plain, [gate, up], PRECISIONS[dtype])


@pytest.mark.parametrize("has_bias", [False, True])
def test_the_adapted_layer_equals_autograd(dtype: torch.dtype, has_bias: bool) -> None:
    x = torch.randn(2, 7, 24).to(dtype).requires_grad_()
    weight, bias = torch.randn(40, 24).to(dtype), torch.randn(40).to(dtype) if has_bias else None
    down, up = torch.randn(4, 24, requires_grad=True), torch.randn(40, 4, requires_grad=True)
    low_down, low_up = down.to(dtype), (up * 2.0).to(dtype)
    plain = functional.linear(x, weight, bias) + functional.linear(x @ low_down.t(), low_up)
    layer = lean.Adapted(weight, bias, down.to(dtype), (up * 2.0).to(dtype))
    found = lean.adapted_linears(x, layer)[0]
    assert_same(found, plain, [x, down, up], 2 * PRECISIONS[dtype])


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_young_adapter_is_not_lost_in_the_rounding(has_bias: bool) -> None:
    """Updates far below one step of bfloat16 come through as a whole; added late, a tenth does."""
    torch.manual_seed(0)
    x, weight = torch.randn(300, 64).bfloat16(), (torch.randn(256, 64) / 8).bfloat16()
    bias = torch.randn(256).bfloat16() if has_bias else None
    down, up = torch.randn(4, 64).div(8).bfloat16(), torch.randn(256, 4).mul(1e-4).bfloat16()
    with_adapter = lean.adapted_linears(x, lean.Adapted(weight, bias, down, up))[0].double()
    without = lean.adapted_linears(x, lean.Adapted(weight, bias, down, torch.zeros_like(up)))[0]
    update = (x @ down.t()).double() @ up.double().t()
    realised = ((with_adapter - without.double()) * update).sum() / update.square().sum()
    assert realised == pytest.approx(1, abs=0.1)


@pytest.mark.usefixtures("compiled")
def test_the_adapted_feed_forward_equals_autograd(dtype: torch.dtype) -> None:
    x = torch.randn(2, 7, 24).to(dtype).requires_grad_()
    shapes = ((40, 24), (40, 24), (24, 40))
    weights = [(torch.randn(o, i) / i**0.5).to(dtype) for o, i in shapes]
    biases = [None, torch.randn(40).to(dtype), torch.randn(24).to(dtype)]
    learnt = [
        (torch.randn(r, i, requires_grad=True), torch.randn(o, r, requires_grad=True))
        for r, (o, i) in zip((4, 3, 2), shapes, strict=True)
    ]

    def layers() -> list[lean.Adapted]:
        return [
            lean.Adapted(weight, bias, down.to(dtype), (up * 0.5).to(dtype))
            for weight, bias, (down, up) in zip(weights, biases, learnt, strict=True)
        ]

    def plain(inner: Tensor, layer: lean.Adapted) -> Tensor:
        output = functional.linear(inner, layer.weight, layer.bias)
        return output + functional.linear(inner @ layer.down.t(), layer.up)

    gate, up, down = layers()
    expected = plain(functional.silu(plain(x, gate)) * plain(x, up), down)
    found = lean.adapted_feed_forward(x, *layers())
    assert_same(found, expected, [x, *(p for pair in learnt for p in pair)], 4 * PRECISIONS[dtype])


def test_what_is_given_can_be_changed_in_place() -> None:
    x = torch.randn(1, 7, 24, requires_grad=True)
    layer, back = (
        lean.Adapted(torch.randn(o, i), None, torch.randn(4, i), torch.randn(o, 4))
        for o, i in ((40, 24), (24, 40))
    )

    def one() -> Tensor:
        return lean.adapted_linears(x, layer, layer)[1]

    def block() -> Tensor:
        return lean.adapted_feed_forward(x, layer, layer, back)

    for give in (one, block):
        expected = give().clamp(-1, 1)
        assert_same(give().clamp_(-1, 1), expected, [x], 1e-6)


def test_the_adapted_layer_takes_inputs_without_gradient() -> None:
    down, up = torch.randn(4, 24, requires_grad=True), torch.randn(40, 4, requires_grad=True)
    layer = lean.Adapted(torch.randn(40, 24), None, down, up)
    (output,) = lean.adapted_linears(torch.randn(1, 7, 24), layer)
    assert all(g.abs().sum() > 0 for g in gradients(output, [down, up]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_lean_model_gives_the_same_hidden_states(family: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path, family))
    model.requires_grad_(False)
    ids = torch.arange(3, 30)[None]
    plain = model(input_ids=ids).logits
    lean.make_lean(model)
    changed = [type(m).__name__ for m in model.modules() if "forward" in vars(m)]
    if family == "llama":
        assert len(changed) == 3 * model.config.num_hidden_layers + 1
    torch.testing.assert_close(model(input_ids=ids).logits, plain, rtol=1e-5, atol=1e-5)


def test_a_gated_block_whose_layers_have_no_width_is_left_alone(tmp_path: Path) -> None:
    """As in the image tower of Gemma 4."""
    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path, "gemma4"))
    lean.make_lean(model)
    tower = model.model.vision_tower.encoder.layers[0].mlp
    assert not hasattr(tower.gate_proj, "in_features")
    assert "forward" not in vars(tower)


class OffsetRMSNorm(nn.Module):
    """A norm that adds one to its weight, as Gemma's does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.zeros(8)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (8,), self.weight + 1, self.variance_epsilon)


class Gated(nn.Module):
    """A gated block with another activation."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.down_proj(functional.gelu(self.gate_proj(x)) * self.up_proj(x))
        return mixed


def test_a_norm_that_learns_gets_its_gradient(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(write_model(tmp_path)).requires_grad_(False)
    lean.make_lean(model)
    model.requires_grad_(True)
    model(input_ids=torch.arange(3, 30)[None]).logits.square().sum().backward()
    assert model.model.norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("module", [OffsetRMSNorm(), Gated()])
def test_modules_with_another_result_are_left_alone(module: nn.Module) -> None:
    lean.make_lean(module.requires_grad_(False))
    assert "forward" not in vars(module)
