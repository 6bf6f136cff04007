"""Float32 becomes bfloat16 without favouring the grid: what rounding takes here it gives there.

Rounded to nearest, an update smaller than half a step of bfloat16 is lost where the old value lies
on the grid, as stored weights do, and counts double or more where it lies between two steps. Here
every element is rounded by a threshold of its own, evenly spread over the elements: of equal small
updates the right share is carried out. Values on the grid stay, and equal values round equally.
"""

from functools import lru_cache

import torch
from torch import Tensor

NUM_THRESHOLDS = 65_521
"""Largest prime below 2^16: no row length is a multiple, so no column shares a threshold."""
AT_ONCE = 16 * NUM_THRESHOLDS


def round_evenly(wide: Tensor) -> Tensor:
    """Float32 of any shape as bfloat16, each element up or down by its position's threshold.

    Stochastic rounding (Gupta et al. 2015) with numbers drawn once and for all.
    """
    bits = wide.contiguous().view(-1).view(torch.int32)
    rounded = torch.empty(len(bits), dtype=torch.int16, device=wide.device)
    thresholds = _thresholds(wide.device)
    for start in range(0, len(bits), AT_ONCE):
        part = bits[start : start + AT_ONCE]
        # What is cut off in the end carries over into the higher half as often as it should.
        rounded[start : start + AT_ONCE] = (part + thresholds[: len(part)]) >> 16
    return rounded.view(torch.bfloat16).view(wide.shape)


@lru_cache(maxsize=8)
def _thresholds(device: torch.device) -> Tensor:
    """[AT_ONCE] int32 in 0 to 2^16 - 1, in a random order, again and again."""
    order = torch.randperm(NUM_THRESHOLDS, generator=torch.Generator().manual_seed(0))
    return order.to(device, torch.int32).repeat(AT_ONCE // NUM_THRESHOLDS)
