"""A linear head fitted to vectors that do not change: logistic regression, to its optimum.

What a few rows a class can teach fits in memory at once, so the head is not stepped towards but
solved (L-BFGS; Liu and Nocedal 1989), with the strength of weight decay that scikit-learn's default
has, C = 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from luthier.models.asking import pooled_of
from luthier.models.encoders import Encoder
from luthier.tokens import EncodedTexts
from luthier.training.classes import multi_hot
from luthier.training.ranks import Ranks

MAX_ROUNDS = 200
PROBE_ROWS = 10_000
"""Rows that are enough to begin a head with."""


def fit_head(
    model: Encoder,
    examples: Sequence[EncodedTexts],
    *,
    is_multi: bool,
    budget: int,
    weights: Sequence[float] = (),
) -> float:
    """Fit the model's linear head to the examples' labels by its vectors as they are.

    Returns the mean loss. `budget` bounds the tokens computed at once; `weights` are those of the
    classes, where a row has one.
    """
    head = model.network.head
    assert isinstance(head, nn.Linear), "a linear head on vectors"
    texts = [example.texts[0] for example in examples]
    vectors = pooled_of(model, texts, budget).to(model.device)
    if is_multi:
        targets = multi_hot(examples, head.out_features).to(vectors.device)
    else:
        targets = torch.tensor([e.classes[0] for e in examples], device=vectors.device)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    wanted = [p.requires_grad for p in head.parameters()]
    head.requires_grad_(True)
    weighted = torch.tensor(weights, device=vectors.device) if len(weights) else None
    loss = _solve(head, vectors, targets, weighted, is_multi=is_multi)
    for parameter, learns in zip(head.parameters(), wanted, strict=True):
        parameter.requires_grad_(learns)
    return loss


def start_from_probe(
    model: Encoder,
    examples: Sequence[EncodedTexts],
    ranks: Ranks,
    *,
    is_multi: bool,
    budget: int,
    seed: int,
) -> None:
    """Let a linear head begin as the best one for the body as it is, on every rank the same.

    A head that has learnt nothing bends the body while it learns, and some of what texts unlike the
    training rows need is lost (Kumar et al. 2022, "linear probing then fine-tuning"). Other heads
    stay as they are.
    """
    head = model.network.head
    if not isinstance(head, nn.Linear):
        return
    if ranks.is_first:
        chosen = list(examples)
        if len(chosen) > PROBE_ROWS:
            order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
            chosen = [chosen[i] for i in order[:PROBE_ROWS].tolist()]
        fit_head(model, chosen, is_multi=is_multi, budget=budget)
    head.load_state_dict(ranks.tell(head.state_dict() if ranks.is_first else {}))


def _solve(
    head: nn.Linear, vectors: Tensor, targets: Tensor, weights: Tensor | None, *, is_multi: bool
) -> float:
    solver = torch.optim.LBFGS(
        head.parameters(), max_iter=MAX_ROUNDS, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def loss_of_data() -> Tensor:
        logits = head(vectors)
        if is_multi:
            losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            return losses.sum() / len(vectors)
        return functional.cross_entropy(logits, targets, weights)

    def closure() -> float:
        solver.zero_grad()
        loss = loss_of_data() + head.weight.square().sum() / (2 * len(vectors))
        loss.backward()
        return loss.item()

    solver.step(closure)
    solver.zero_grad()
    with torch.no_grad():
        return loss_of_data().item()
