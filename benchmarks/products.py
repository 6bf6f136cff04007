"""Ways to multiply few rows with large matrices in float32: which is fastest on this machine.

    python -m benchmarks.products [--width 576] [--repeats 5]

The matrices of a model's blocks (those of SmolLM2-135M by default) lie in memory one after another,
so that none is in a cache when its turn comes. The ways: `x W^T` as PyTorch takes it, `W x^T`, and
Luthier's product in blocks. Each is given x as its own results lie in memory, for so it goes on
from layer to layer.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from luthier.models.products import product

ROWS = (1, 2, 4, 8, 15, 16, 24, 32, 48, 64, 96, 128, 256)
MATRIX_BYTES = 256 * 2**20
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x W^T": functional.linear,
    "W x^T": lambda x, weight: torch.mm(weight, x.t()).t(),
    "blocks": product,
}


@torch.inference_mode()
def main() -> None:
    """Print milliseconds of each way for each number of rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    width = given.width
    wide = width * 8 // 3 // 32 * 32
    shapes = ((width, width), (wide, width), (width, wide))
    of_a_block = sum(outputs * inputs * 4 for outputs, inputs in shapes)
    count = max(2, MATRIX_BYTES // of_a_block)
    matrices = [torch.randn(shape) for _ in range(count) for shape in shapes]
    print(f"{count} blocks of {of_a_block / 2**20:.1f} MiB, {torch.get_num_threads()} threads")
    print("rows   " + "".join(f"{way:>10}" for way in WAYS) + "   ms")
    for num_rows in ROWS:
        inputs = {size: torch.randn(num_rows, size) for _, size in shapes}
        taken = [_milliseconds(way, matrices, inputs, given.repeats) for way in WAYS.values()]
        print(f"{num_rows:<7}" + "".join(f"{ms:>10.1f}" for ms in taken), flush=True)


def _milliseconds(
    way: Callable[[Tensor, Tensor], Tensor],
    matrices: list[Tensor],
    inputs: dict[int, Tensor],
    repeats: int,
) -> float:
    strides = way(inputs[matrices[0].shape[1]], matrices[0]).stride()
    if strides[0] == 1:
        inputs = {size: x.t().contiguous().t() for size, x in inputs.items()}
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for matrix in matrices:
            way(inputs[matrix.shape[1]], matrix)
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:]) * 1e3


if __name__ == "__main__":
    main()
