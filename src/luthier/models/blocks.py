"""The blocks of a transformer; the last one's feed-forward computed only where it is used.

After the last block's attention no token sees another, so what its feed-forward would add to
tokens that predict nothing is read by nobody: of a long prompt with a short answer, that is nearly
all of them. Losses and gradients stay the same.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from luthier.errors import ModelError

WORTH = 0.9
"""Where a larger share of the tokens predict something, all are computed."""


def text_part(model: PreTrainedModel) -> nn.Module:
    """What computes hidden states of text; what reads images or sound lies outside."""
    return cast(nn.Module, model.get_decoder())


def blocks_of(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The model's transformer blocks in order, and their name in its text part."""
    return next(
        (name, module)
        for name, module in text_part(model).named_modules()
        if isinstance(module, nn.ModuleList)
    )


def last_blocks(model: PreTrainedModel, count: int) -> list[nn.Module]:
    """The last blocks of a model. Raises ModelError when it has fewer."""
    _, blocks = blocks_of(model)
    if count > len(blocks):
        raise ModelError(
            f"the model has {len(blocks)} blocks",
            where="tuning.count",
            accepted=f"1 to {len(blocks)}",
        )
    return list(blocks[len(blocks) - count :])


def narrow_last(model: PreTrainedModel) -> None:
    """From now on, `predicting` [P] int64, given to the model, narrows its last feed-forward.

    Left as it is where there is none that treats each token by itself.
    """
    block = blocks_of(model)[1][-1]
    feed_forward = getattr(block, "mlp", None)
    if feed_forward is None or not _is_tokenwise(feed_forward, model):
        return
    chosen = _Chosen()
    # Attention is told which tokens they are, also when the block is computed again for gradients.
    for part in block.children():
        if part is not feed_forward:
            part.register_forward_pre_hook(chosen.note, with_kwargs=True)
    feed_forward.register_forward_pre_hook(chosen.take)
    feed_forward.register_forward_hook(chosen.put_back)


class _Chosen:
    """The tokens that predict something, from a block's attention to its feed-forward."""

    def __init__(self) -> None:
        self._tokens: Tensor | None = None
        self._num_tokens = 0

    def note(self, part: nn.Module, args: object, kwargs: dict[str, Any]) -> None:
        if kwargs:  # attention takes some, norms do not
            self._tokens = kwargs.get("predicting")

    def take(self, feed_forward: nn.Module, args: tuple[Tensor]) -> Tensor | None:
        self._num_tokens = args[0].shape[1]
        if self._tokens is None or len(self._tokens) > WORTH * self._num_tokens:
            self._tokens = None
            return None
        return args[0].index_select(1, self._tokens)

    def put_back(self, feed_forward: nn.Module, args: object, output: Tensor) -> Tensor | None:
        if self._tokens is None:
            return None
        whole = output.new_zeros((len(output), self._num_tokens, output.shape[-1]))
        whole = whole.index_copy(1, self._tokens, output)
        self._tokens = None
        return whole


@torch.no_grad()
def _is_tokenwise(module: nn.Module, model: PreTrainedModel) -> bool:
    """Whether a module gives for one token alone what it gives for it among others."""
    width = int(model.config.get_text_config().hidden_size)
    probe = torch.linspace(-3, 5, 2 * width, device=model.device).sin_().view(1, 2, width)
    try:
        both, first = (module(x) for x in (probe.to(model.dtype), probe[:, :1].to(model.dtype)))
    except (RuntimeError, TypeError):
        return False
    if not isinstance(both, Tensor) or both.shape != probe.shape:
        return False
    tolerance = 4 * torch.finfo(model.dtype).eps
    largest = float(both.abs().max())
    return torch.allclose(both[:, :1], first, rtol=tolerance, atol=tolerance * largest)
