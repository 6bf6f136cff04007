"""Attention kernels for GPUs give what the flat attention gives: here on a CPU, there with a GPU.

On a CPU FlexAttention runs uncompiled and forward only, and varlen attention not at all.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from luthier.models.attention import attend
from luthier.models.layout import FlatLayout, Scoring
from luthier.models.varlen import choose, fits_flash, flash, flex, one_by_one

FOREST = FlatLayout.of((40, 33, 1, 0, 54), (-1, 0, 0, -1, 1))
APART = FlatLayout.of((40, 33, 1, 54))
SCORINGS = [Scoring(0.3), Scoring(0.3, window=7), Scoring(0.3, window=200)]
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def inputs(
    layout: FlatLayout, device: str, dtype: torch.dtype, *, with_gradients: bool = True
) -> list[Tensor]:
    """Query, key, value, and weights of the output."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, layout.num_rows, 3, 16), *(2 * ((2, layout.num_rows, 16),)))
    found = [torch.randn(s, generator=generator).to(device, dtype) for s in (*shapes, shapes[0])]
    return [*(x.requires_grad_(with_gradients) for x in found[:3]), found[3]]


def check(
    kernel: Callable[..., Tensor], layout: FlatLayout, scoring: Scoring, device: str = "cpu",
    dtype: torch.dtype = torch.float32, *, with_gradients: bool = True,
) -> None:  # fmt: skip
    query, key, value, weight = inputs(layout, device, dtype, with_gradients=with_gradients)
    given = [query, key, value]
    # A GPU's float32 products may be of lower precision.
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-2 if device == "cuda" else 1e-4
    found, expected = (f(query, key, value, layout, scoring) for f in (kernel, attend))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    if with_gradients:
        for a, b in zip(
            torch.autograd.grad((found * weight).sum(), given),
            torch.autograd.grad((expected * weight).sum(), given),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * b.abs().max().item())


@pytest.mark.parametrize("layout", [FOREST, APART])
@pytest.mark.parametrize("scoring", SCORINGS)
def test_segment_by_segment_equals_flat(layout: FlatLayout, scoring: Scoring) -> None:
    check(one_by_one, layout, scoring)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("layout", [FOREST, APART])
@pytest.mark.parametrize("scoring", [*SCORINGS, Scoring(0.3, cap=2.0)])
def test_flex_equals_flat(layout: FlatLayout, scoring: Scoring) -> None:
    check(flex, layout, scoring, with_gradients=False)


def test_on_a_cpu_the_flat_attention_is_its_own_kernel() -> None:
    assert choose(torch.zeros(1, 4, 1, 8), APART, SCORINGS[0]) is None


@pytest.mark.parametrize(
    ("width", "dtype", "layout", "scoring", "fits"),
    [
        (64, torch.bfloat16, APART, SCORINGS[0], True),
        (256, torch.float16, APART, SCORINGS[1], True),
        (512, torch.bfloat16, APART, SCORINGS[0], False),  # Gemma 4
        (60, torch.bfloat16, APART, SCORINGS[0], False),
        (64, torch.float32, APART, SCORINGS[0], False),
        (64, torch.bfloat16, FOREST, SCORINGS[0], False),
        (64, torch.bfloat16, APART, Scoring(0.3, cap=2.0), False),
    ],
)
def test_flash_is_for_what_it_takes(
    width: int, dtype: torch.dtype, layout: FlatLayout, scoring: Scoring, *, fits: bool
) -> None:
    query = torch.zeros(2, layout.num_rows, 3, width, dtype=dtype)
    assert fits_flash(query, layout, scoring) is fits


@NEEDS_GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scoring", [*SCORINGS, Scoring(0.3, cap=2.0)])
@pytest.mark.parametrize("layout", [FOREST, APART])
def test_the_kernel_chosen_on_a_gpu_equals_flat(
    layout: FlatLayout, scoring: Scoring, dtype: torch.dtype
) -> None:
    query = inputs(layout, "cuda", dtype)[0]
    kernel = choose(query, layout, scoring)
    assert kernel is not None
    check(kernel, layout, scoring, "cuda", dtype)


@NEEDS_GPU
@pytest.mark.parametrize("scoring", SCORINGS)
def test_flash_equals_flat(scoring: Scoring) -> None:
    check(flash, APART, scoring, "cuda", torch.bfloat16)
