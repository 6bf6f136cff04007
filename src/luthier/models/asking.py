"""Many texts are put to a model that reads them, in batches of like length.

Results come in the order of the texts. Nothing is padded but within attention; equal texts of a
batch are computed once.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from luthier.models.encoders import Encoder
from luthier.models.flat import cut_in_order
from luthier.models.texts import TextBatch
from luthier.tokens import EncodedText

Observe = Callable[[int], None]


def vectors_of(
    model: Encoder,
    texts: Sequence[EncodedText],
    budget: int,
    observe: Observe = lambda done: None,
) -> Tensor:
    """Vectors [n, D] in float32 on the CPU; `budget` bounds the tokens computed at once."""
    return _ask(model, texts, budget, observe, model.vectors)


def logits_of(
    model: Encoder,
    texts: Sequence[EncodedText],
    budget: int,
    observe: Observe = lambda done: None,
) -> Tensor:
    """A classifier's logits [n, C] in float32 on the CPU."""
    return _ask(model, texts, budget, observe, model.logits)


def pooled_of(model: Encoder, texts: Sequence[EncodedText], budget: int) -> Tensor:
    """What a linear head is given [n, D], in float32 on the CPU."""
    return _ask(model, texts, budget, lambda done: None, model.pooled)


@torch.no_grad()
def _ask(
    model: Encoder,
    texts: Sequence[EncodedText],
    budget: int,
    observe: Observe,
    ask: Callable[[TextBatch], Tensor],
) -> Tensor:
    model.network.eval()
    order = sorted(range(len(texts)), key=lambda i: -texts[i].num_tokens)
    found: Tensor | None = None
    for start, end in cut_in_order([texts[i].num_tokens for i in order], budget):
        chosen = order[start:end]
        answers = ask(model.pack([texts[i] for i in chosen]).to(model.device)).float().cpu()
        if found is None:
            found = torch.empty(len(texts), answers.shape[1])
        found[chosen] = answers
        observe(end)
    return torch.empty(0, 0) if found is None else found
