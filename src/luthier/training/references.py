"""What the model at the start thinks of every answer, computed once before training.

The log-likelihoods depend on weights, sequences and precision, and on nothing of the method: the
caller keeps them for every run that starts alike, under `reference_key`.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from luthier.models.flat import cut_in_order
from luthier.models.loading import LanguageModel
from luthier.tokens import EncodedExample, EncodedPair, EncodedRated
from luthier.training.objectives import pack_examples

Reference = tuple[float, float]
"""Log-likelihood in nats of an example's two answers."""


@torch.no_grad()
def reference_logprobs(
    model: LanguageModel,
    examples: Sequence[EncodedExample],
    budget: int,
    observe: Callable[[int], None] = lambda done: None,
) -> list[Reference]:
    """Log-likelihoods of the two sequences of each example, by the model as it is.

    `budget` bounds the tokens computed at once; `observe` is told how many examples are done.
    """
    model.network.eval()
    found: list[Reference] = []
    for start, end in cut_in_order([example.num_tokens for example in examples], budget):
        batch = pack_examples(examples[start:end], share=True).to(model.device)
        first, second = model.answer_logprobs(batch).unflatten(0, (-1, 2)).unbind(1)
        found += zip(first.tolist(), second.tolist(), strict=True)
        observe(end)
    return found


def with_references(
    examples: Sequence[EncodedExample], references: Sequence[Reference]
) -> list[EncodedExample]:
    """The pairs and rated answers with what the model at the start thought of them."""
    return [
        replace(example, reference=(reference[0], reference[1]))
        if isinstance(example, EncodedPair | EncodedRated)
        else example
        for example, reference in zip(examples, references, strict=True)
    ]


def reference_key(start: str, examples: Sequence[EncodedExample]) -> str:
    """SHA-256 of what the log-likelihoods depend on: `start` names weights and precision."""
    digest = hashlib.sha256(start.encode())
    for example in examples:
        sequences = [(s.input_ids, s.spans) for s in example.sequences]
        digest.update(json.dumps(sequences).encode())
    return digest.hexdigest()
