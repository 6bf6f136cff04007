"""Hard negatives: texts that a model finds near an anchor, but that do not belong to it.

Candidates are the other pairs' positives. One that is nearly as near as the anchor's own positive
probably belongs to it as well and is left out (the guard of Moreira et al. 2024: at most 95 % of
the positive's similarity), as is every text equal to the positive or to the anchor, and what
equal anchors have for positives.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from luthier.models.asking import vectors_of
from luthier.models.encoders import Encoder
from luthier.tokens import EncodedTexts

GUARD = 0.95
"""Share of the positive's cosine above which a candidate is taken for another positive."""
ROWS = 1024
"""Anchors compared with all candidates at once."""


def with_hard_negatives(
    model: Encoder, examples: Sequence[EncodedTexts], count: int, budget: int
) -> list[EncodedTexts]:
    """The pairs, each with up to `count` more negatives found by the model as it is."""
    if not count or not examples:
        return list(examples)
    anchors = [example.texts[0] for example in examples]
    candidates = list({tuple(e.texts[1].input_ids): e.texts[1] for e in examples}.values())
    place = {tuple(text.input_ids): i for i, text in enumerate(candidates)}
    belonging: dict[tuple[int, ...], set[int]] = {}
    for example in examples:
        own = belonging.setdefault(tuple(example.texts[0].input_ids), set())
        own.add(place[tuple(example.texts[1].input_ids)])
    asked = torch.nn.functional.normalize(vectors_of(model, anchors, budget), dim=-1)
    offered = torch.nn.functional.normalize(vectors_of(model, candidates, budget), dim=-1)
    found: list[EncodedTexts] = []
    for start in range(0, len(examples), ROWS):
        cosines = asked[start : start + ROWS] @ offered.t()
        for example, row in zip(examples[start : start + ROWS], cosines, strict=True):
            key = tuple(example.texts[0].input_ids)
            own_place = place[tuple(example.texts[1].input_ids)]
            limit = GUARD * row[own_place] if row[own_place] > 0 else row[own_place]
            unfit = [*belonging[key], *([place[key]] if key in place else [])]
            allowed = row.masked_fill(row >= limit, -torch.inf)
            allowed[unfit] = -torch.inf
            best = allowed.topk(min(count, len(candidates)))
            chosen = [
                candidates[i]
                for i, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
                if score > -torch.inf
            ]
            found.append(replace(example, texts=(*example.texts, *chosen)))
    return found
