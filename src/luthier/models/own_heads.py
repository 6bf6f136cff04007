"""An architecture's own classification head, given the hidden states of a flat batch.

transformers' classifiers are a body and a head; the body runs flat (`encoders`), and the head is
given what it would take from padded rows. Each family below is compared with transformers' own
logits when a model is loaded.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from luthier.models.sentence import pool
from luthier.models.texts import TextBatch

Head = Callable[[Any, Tensor, TextBatch], Tensor]


def _pooled_bert(model: Any, states: Tensor, batch: TextBatch) -> Tensor:
    pooler = getattr(model.base_model, "pooler", None) or model.pooler
    found: Tensor = model.classifier(pooler(states[batch.starts][:, None]))
    return found


def _first_token(model: Any, states: Tensor, batch: TextBatch) -> Tensor:
    found: Tensor = model.classifier(states[batch.starts][:, None])
    return found


def _distilbert(model: Any, states: Tensor, batch: TextBatch) -> Tensor:
    inner = torch.relu(model.pre_classifier(states[batch.starts]))
    found: Tensor = model.classifier(inner)
    return found


def _modernbert(model: Any, states: Tensor, batch: TextBatch) -> Tensor:
    pooled = pool(states, batch, model.config.classifier_pooling).to(states.dtype)
    found: Tensor = model.classifier(model.head(pooled))
    return found


def _score(model: Any, states: Tensor, batch: TextBatch) -> Tensor:
    found: Tensor = model.score(states[batch.lasts])
    return found


FIRST_TOKEN = ("roberta", "xlm-roberta", "camembert", "electra", "mpnet", "roberta-prelayernorm")
FAMILIES: dict[str, tuple[Head, tuple[str, ...]]] = {
    "bert": (_pooled_bert, ("bert.pooler", "classifier")),
    "deberta": (_pooled_bert, ("pooler", "classifier")),
    "deberta-v2": (_pooled_bert, ("pooler", "classifier")),
    "distilbert": (_distilbert, ("pre_classifier", "classifier")),
    "modernbert": (_modernbert, ("head", "classifier")),
    **dict.fromkeys(FIRST_TOKEN, (_first_token, ("classifier",))),
}
"""Model type -> how its head answers, and the head's modules."""


def own_head(model: nn.Module) -> tuple[Head, tuple[str, ...]] | None:
    """The head of a transformers classifier, and the names of its modules; None if unknown."""
    kind = str(model.config.model_type)  # type: ignore[union-attr] # every pretrained model has one
    if kind in FAMILIES:
        return FAMILIES[kind]
    return (_score, ("score",)) if hasattr(model, "score") else None
