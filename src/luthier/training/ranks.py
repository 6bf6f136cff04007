"""The processes that train one model together, under `torchrun` or Ray, or this one alone.

Every process holds all examples and knows all lengths, so who computes what is decided by each in
the same way, without a word. Data is divided by tokens; gradients are summed once a step, whatever
the micro-batches. Sums go over all ranks in float64 or in the gradients' float32.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

T = TypeVar("T")

TIMEOUT = timedelta(hours=24)
"""The first rank evaluates alone while the others wait for it."""


class Ranks:
    """This process among those that train together: number `rank` of `count`."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and tells of progress."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=_exchange_device())
        dist.all_reduce(total)
        return [float(x) for x in total]

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank."""
        return self.sum(float(flag))[0] > 0

    def most(self, value: int) -> int:
        """The largest of all ranks' values."""
        if self.count == 1:
            return value
        largest = torch.tensor(value, device=_exchange_device())
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def sum_rows(self, rows: Tensor | None, num_rows: int) -> Tensor:
        """Rows [num_rows, K] float32 summed over all ranks; a rank without any brings None."""
        if self.count == 1:
            assert rows is not None, "a step has examples"
            return rows
        width = self.most(0 if rows is None else rows.shape[1])
        total = torch.zeros(num_rows, width, device=_exchange_device())
        if rows is not None:
            total += rows.to(total.device)
        dist.all_reduce(total)
        return total

    def wait(self) -> None:
        """Return when all ranks have come here."""
        if self.count > 1:
            dist.barrier()

    def tell(self, said: T) -> T:
        """What the first rank says: any plain value."""
        if self.count == 1:
            return said
        values = [said]
        dist.broadcast_object_list(values, src=0, device=_exchange_device())
        return values[0]

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum every gradient over all ranks; a rank without one takes part with zeros."""
        if self.count == 1:
            return
        gradients = []
        for parameter in parameters:
            if isinstance(parameter, DTensor):
                continue  # summed as it was formed
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def divide(self, examples: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """The examples of each rank, balanced by tokens; each example on exactly one."""
        shares: list[list[int]] = [[] for _ in range(self.count)]
        loads = [0] * self.count
        for i in sorted(examples, key=lambda i: (-lengths[i], i)):
            lightest = min(range(self.count), key=lambda r: (loads[r], r))
            shares[lightest].append(i)
            loads[lightest] += lengths[i]
        return shares


BUCKET = 2**24
"""Elements reduced at once: few calls, and little memory beside the gradients."""


def _buckets(gradients: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _exchange_device() -> torch.device:
    """Where the process group exchanges tensors."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def leave_ranks() -> None:
    """Part from the other processes; this one goes on alone, and may end."""
    if dist.is_initialized():
        # A thread of gloo drops an exchange's tensors a moment after the exchange is done; Python
        # tensors dropped while Python ends abort the process (pytorch#179291), and a sharded
        # model's caches keep those threads alive. So the last exchanges carry none.
        for _ in range(2):
            dist.barrier()
        dist.destroy_process_group()


def join_ranks(device: str, *, is_sharded: bool = False) -> Ranks:
    """Join the processes that `torchrun` or Ray started with this one; alone without them.

    `device` is "cpu" or "cuda": what the processes compute on. A sharded model needs a process
    group even in a process alone.
    """
    if dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    # Where there is no GPU, loading the model says so.
    on_gpu = device == "cuda" and torch.cuda.is_available()
    backend = "nccl" if on_gpu else "gloo"
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        if is_sharded:
            dist.init_process_group(
                backend,
                rank=0,
                world_size=1,
                store=dist.HashStore(),  # type: ignore[attr-defined]
            )
        return Ranks()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(backend, timeout=TIMEOUT)
    return Ranks(dist.get_rank(), dist.get_world_size())
