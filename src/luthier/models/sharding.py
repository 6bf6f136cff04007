"""A model spread over processes: each keeps a part of every block, all compute the whole.

Fully sharded data parallel (FSDP2, torch's `fully_shard`; Rajbhandari et al. 2020). Weights are
kept and gathered in the precision they compute in, gradients summed in float32; float32 masters of
what learns (`trained.py`) are spread like it. Adapters are small and stay whole on every process.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from luthier.models.blocks import blocks_of
from luthier.models.loading import LanguageModel
from luthier.models.trained import trained_parameters


class Root(nn.Module):
    """What a sharded model computes in: parts outside of the blocks are whole while it runs."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, function: Callable[[], Any]) -> Any:
        """What the function gives."""
        return function()


def shard(model: LanguageModel) -> None:
    """Spread a model whose trainable weights are chosen over the processes of the group."""
    is_adapted = isinstance(model.network, PeftModel)
    kept = {p for p in model.network.parameters() if p.requires_grad} if is_adapted else set()
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    root = Root(model.base)
    for module in (*blocks_of(model.base)[1], root):
        fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=kept)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            # The loop divides by the count of the whole step: gradients are sums, not means.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    model.root = root


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be spread over processes; all of them must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole value, spread as another tensor is."""
    if not isinstance(like, DTensor):
        return value
    own = value.to(like.device, like.dtype)
    return cast(
        Tensor, torch.distributed.tensor.distribute_tensor(own, like.device_mesh, like.placements)
    )


@torch.no_grad()
def gather(model: LanguageModel, into: LanguageModel) -> None:
    """Give a whole model the trained weights of one spread over processes; all of them must."""
    assert model.root is not None, "it is spread over processes"
    for module in model.root.modules():
        if isinstance(module, FSDPModule):
            # What lies outside of the blocks stays whole after a validation, as it was then:
            # weights that were put back since, the best ones, are seen in the parts only.
            module.reshard()
    targets = trained_parameters(into.network)
    for name, weight in trained_parameters(model.network).items():
        targets[name].copy_(whole(weight))
    into.network.eval()
