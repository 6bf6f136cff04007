"""Float32 becomes bfloat16 with every small update's right share, and nothing else moves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.models.rounding import AT_ONCE, NUM_THRESHOLDS, round_evenly


@pytest.fixture(scope="module")
def weights() -> torch.Tensor:
    """More than is rounded at once, on the grid of bfloat16, in rows as wide as real ones."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(AT_ONCE // 1024 + 5, 1024, generator=generator).mul_(0.05).bfloat16()


def test_what_lies_on_the_grid_stays(weights: torch.Tensor) -> None:
    assert torch.equal(round_evenly(weights.float()), weights)


@pytest.mark.parametrize("size", [1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.3], ids=["on the grid", "midway", "between"])
def test_small_updates_come_through_as_a_whole(
    weights: torch.Tensor, size: float, fraction: float
) -> None:
    """Rounded to nearest, updates of 1e-5 count a ninth on the grid, and nine times midway."""
    step = torch.nextafter(weights, torch.full_like(weights, torch.inf)).float() - weights.float()
    wide = weights.float() + fraction * step
    update = torch.randn(wide.shape, generator=torch.Generator().manual_seed(1)) * size
    moved = round_evenly(wide + update).double() - round_evenly(wide).double()
    realised = (moved * update).sum() / update.double().square().sum()
    assert realised == pytest.approx(1, abs=0.15 if size == 1e-6 else 0.02)


def test_every_row_and_every_column_gets_its_share(weights: torch.Tensor) -> None:
    """An update everywhere the same shows the same everywhere, up to chance."""
    step = torch.nextafter(weights, torch.full_like(weights, torch.inf)).float() - weights.float()
    moved = round_evenly(weights.float() + 0.25 * step) != weights
    for dim in (0, 1):
        shares = moved.double().mean(dim)
        assert shares.mean() == pytest.approx(0.25, abs=0.005)
        assert (shares - 0.25).abs().max() < 6 * (0.25 * 0.75 / moved.shape[dim]) ** 0.5


@given(st.floats(width=32), st.integers(0, NUM_THRESHOLDS - 1))
def test_any_number_goes_to_one_of_its_neighbours(value: float, place: int) -> None:
    wide = torch.zeros(NUM_THRESHOLDS)
    wide[place] = value
    (found,) = round_evenly(wide)[place : place + 1].float()
    nearest = wide[place].bfloat16().float()
    if not torch.isfinite(nearest):
        assert torch.isnan(found) or found.abs() >= torch.finfo(torch.bfloat16).max
    else:
        step = float(torch.finfo(torch.bfloat16).eps) * abs(value) + 1e-40
        assert abs(float(found) - value) <= step


def test_shapes_and_views_are_kept() -> None:
    wide = torch.arange(12.0).view(3, 4).t()
    assert torch.equal(round_evenly(wide), wide.bfloat16())
    assert round_evenly(torch.tensor(2.0)).shape == ()
