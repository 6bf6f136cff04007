"""A model folder becomes a model that reads whole texts: vectors of them, or answers about them.

Bodies of encoders and of causal decoders alike run flat, without padding; before one is used, a
small flat batch is compared with transformers' own computation, text by text, and what comes out
differently runs padded. On top of a body stands a pooling, dense layers of a sentence-transformers
folder, and for a classifier a head: the architecture's own, or a linear layer on the vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from luthier.errors import ModelError
from luthier.models import attention
from luthier.models.loading import PROBE_TOLERANCE, reading_model, silence_dropout
from luthier.models.own_heads import Head, own_head
from luthier.models.pooling import Pooling, read_pooling
from luthier.models.sentence import pool, read_dense, read_linear_head
from luthier.models.texts import TextBatch, pack_texts, unfold_texts
from luthier.tokens import EncodedText

LOGITS_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6, torch.bfloat16: 0.1}


class TextNetwork(nn.Module):
    """Everything that can learn: a body, dense layers after pooling, and a head."""

    def __init__(self, body: nn.Module, dense: nn.Sequential, head: nn.Module | None) -> None:
        super().__init__()
        self.body, self.dense, self.head = body, dense, head


@dataclass
class Encoder:
    """A model that reads whole texts, and where it computes."""

    network: TextNetwork
    base: PreTrainedModel
    """The transformers body inside `network`, without adapters."""
    device: torch.device
    pooling: Pooling
    is_causal: bool
    classifier: PreTrainedModel | None = None
    """transformers' classifier around the body, where its own head answers."""
    first_position: int = 0
    """Number of a text's first position (RoBERTa counts from its padding id on)."""
    padded_because: str = ""
    """Why texts are computed as padded rows; empty where they are computed flat."""
    root: nn.Module | None = None
    """What a model spread over processes computes in; texts' models are not spread."""
    own_head: Head | None = field(default=None, repr=False)

    def pack(self, texts: Sequence[EncodedText]) -> TextBatch:
        """The texts as a batch for this model."""
        return pack_texts(texts, is_causal=self.is_causal)

    def vectors(self, batch: TextBatch) -> Tensor:
        """The vectors [N, D] in float32 of the texts asked for, of length 1 if the model says."""
        vectors = self._pooled(self.states(batch), batch)[batch.wanted]
        return functional.normalize(vectors, dim=-1) if self.pooling.normalizes else vectors

    def logits(self, batch: TextBatch) -> Tensor:
        """The head's answers [N, C] in float32 about the texts asked for."""
        states = self.states(batch)
        if self.own_head is not None:
            return self.own_head(self.classifier, states, batch).float()[batch.wanted]
        assert self.network.head is not None, "a classifier has a head"
        found: Tensor = self.network.head(self._pooled(states, batch))
        return found[batch.wanted]

    def pooled(self, batch: TextBatch) -> Tensor:
        """What a linear head is given [N, D], in float32: vectors before they are normalised."""
        return self._pooled(self.states(batch), batch)[batch.wanted]

    def _pooled(self, states: Tensor, batch: TextBatch) -> Tensor:
        vectors: Tensor = self.network.dense(pool(states, batch, self.pooling.mode))
        return vectors

    @property
    def width(self) -> int:
        """Dimensions of a vector."""
        linears = [m for m in self.network.dense if isinstance(m, nn.Linear)]
        return linears[-1].out_features if linears else int(self.base.config.hidden_size)

    def states(self, batch: TextBatch) -> Tensor:
        """Final hidden states [T, H] of a flat batch."""
        knows_types = getattr(self.base.config, "type_vocab_size", 0) > 1
        if self.padded_because:
            ids, mask, types, places = unfold_texts(batch)
            extra = {"token_type_ids": types} if knows_types else {}
            output = self.base(input_ids=ids, attention_mask=mask, **extra)
            return cast(Tensor, output.last_hidden_state.flatten(0, 1)[places])
        extra = {"token_type_ids": batch.type_ids[None]} if knows_types else {}
        output = self.base(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[None] + self.first_position,
            flat_layout=batch.layout,
            **({"use_cache": False} if self.is_causal else {}),
            **extra,
        )
        return cast(Tensor, output.last_hidden_state[0])


def load_encoder(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    answers: int = 0,
    head: Literal["own", "pooled"] = "pooled",
    seed: int = 0,
) -> Encoder:
    """Load the body of an encoder or decoder with frozen weights, and what stands on top of it.

    With `answers`, a head of so many outputs: the architecture's `own`, or a linear layer on the
    vector (`pooled`). Heads that the folder does not hold start from the seed. Raises ModelError.
    """
    attention.register()
    transformers_logging.disable_progress_bar()
    with reading_model(folder), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        whole = None
        if answers and head == "own":
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            config.num_labels = answers
            whole = _read(AutoModelForSequenceClassification, folder, dtype, config=config)
        body = cast(PreTrainedModel, whole.base_model) if whole else _read(AutoModel, folder, dtype)
    everything: nn.Module = whole or body
    everything.requires_grad_(False)
    everything.eval()
    silence_dropout(everything)
    everything.to(device)
    is_causal = _is_causal(body)
    pooling = read_pooling(folder, is_causal=is_causal)
    dense = read_dense(folder, pooling).to(device).requires_grad_(False)
    encoder = Encoder(TextNetwork(body, dense, None), body, device, pooling, is_causal, whole)
    if whole is not None:
        encoder.network.head = _own_modules(encoder, whole, folder)
    elif answers:
        encoder.network.head = _linear_head(folder, encoder.width, answers, seed).to(device)
    _settle(encoder, folder)
    return encoder


def _read(kind: Any, folder: Path, dtype: torch.dtype, **settings: Any) -> PreTrainedModel:
    """A model with the folder's weights; its head, and what only its head reads, may be new."""
    said = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would list the head's weights as missing
    try:
        model, found = kind.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager", use_safetensors=True,
            local_files_only=True, ignore_mismatched_sizes="config" in settings,
            output_loading_info=True, **settings,
        )  # fmt: skip
    finally:
        transformers_logging.set_verbosity(said)
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    missing = sorted(
        name for name in found["missing_keys"]
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith("pooler.")
    )  # fmt: skip
    if missing:
        raise ModelError(
            f"lacks weights of its body: {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else ""),
            where=str(folder),
            accepted=f"all weights of a {model.config.model_type} model",
            advice="fetch the model again",
        )
    return cast(PreTrainedModel, model)


def encoder_outline(folder: Path) -> PreTrainedModel:
    """The modules of a body, their weights without content. Raises ModelError."""
    with reading_model(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model: PreTrainedModel = AutoModel.from_config(config)
    return model


def _own_modules(encoder: Encoder, whole: PreTrainedModel, folder: Path) -> nn.ModuleDict:
    found = own_head(whole)
    if found is None:
        raise ModelError(
            f"{whole.config.model_type} models have a classification head that is not known here",
            where=str(folder),
            advice="set method.head to pooled: a linear layer on the text's vector",
        )
    encoder.own_head, names = found
    modules = {name.replace(".", "_"): whole.get_submodule(name) for name in names}
    return nn.ModuleDict(modules)


def _linear_head(folder: Path, width: int, answers: int, seed: int) -> nn.Linear:
    """The head that the folder was saved with, or one that has learnt nothing yet."""
    head = read_linear_head(folder)
    if head is None or (head.in_features, head.out_features) != (width, answers):
        head = nn.Linear(width, answers)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(head.weight, std=0.02, generator=generator)
        nn.init.zeros_(head.bias)
    return head.requires_grad_(False)


def _is_causal(body: PreTrainedModel) -> bool:
    """Whether tokens see only what stands before them: decoders, but those made to see all."""
    modules = [module for module in body.modules() if hasattr(module, "is_causal")]
    return any(module.is_causal for module in modules)


def probe_texts(size: int) -> list[EncodedText]:
    """Texts of different lengths, with ids any vocabulary has."""
    # None of the ids that families pad with: positions of those are counted otherwise.
    rows = [[7, 3, 11, 5, 4, 13, 17, 19, 23, 4, 9, 6], [8, 5, 12], [5, 12, 3, 8] * 6]
    return [EncodedText([max(3, i % size) for i in row]) for row in rows]


@torch.no_grad()
def _settle(encoder: Encoder, folder: Path) -> None:
    """Choose how to compute: flat where that gives what transformers does, else padded."""
    texts = probe_texts(int(encoder.base.config.vocab_size))
    plain = torch.cat([_plain(encoder, text) for text in texts])
    batch = encoder.pack(texts).to(encoder.device)
    encoder.padded_because = _why_not_flat(encoder, batch, plain)
    if encoder.padded_because:
        if encoder.base._can_set_attn_implementation():
            encoder.base.set_attn_implementation("sdpa" if encoder.base._supports_sdpa else "eager")
        difference = _difference(_taken(encoder, batch), plain)
        if not difference <= PROBE_TOLERANCE.get(plain.dtype, 0.1):
            raise ModelError(
                f"{encoder.padded_because}, and also with padding (by {difference:.2g})",
                where=str(folder),
                advice="choose another architecture; BERT and ModernBERT are known to work",
            )
    if encoder.own_head is not None:
        _check_own_head(encoder, texts, batch, folder)


def _why_not_flat(encoder: Encoder, batch: TextBatch, plain: Tensor) -> str:
    """What keeps texts from coming out in a flat batch as by themselves, or nothing."""
    kind = encoder.base.config.model_type
    if not encoder.base._can_set_attn_implementation():
        return f"{kind} models compute attention in a way of their own"
    encoder.base.set_attn_implementation(attention.FLAT)
    padding = getattr(encoder.base.config, "pad_token_id", None)
    difference = float("inf")
    # Some count positions from 0, RoBERTa's relatives from after their padding id.
    for first in dict.fromkeys((0, padding + 1 if isinstance(padding, int) else 0)):
        encoder.first_position = first
        try:
            difference = min(difference, found := _difference(_taken(encoder, batch), plain))
        except (ModelError, TypeError, RuntimeError, IndexError, AssertionError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            return f"{kind} models cannot run without padding: {said}"
        if found <= PROBE_TOLERANCE.get(plain.dtype, 0.1):
            return ""
    return f"{kind} models come out differently without padding (by {difference:.2g})"


def _taken(encoder: Encoder, batch: TextBatch) -> Tensor:
    """States of the tokens that belong to texts."""
    return encoder.states(batch)[: int(batch.lengths.sum())]


def _plain(encoder: Encoder, text: EncodedText) -> Tensor:
    """Hidden states [t, H] of one text, by transformers alone."""
    ids = torch.tensor([text.input_ids], device=encoder.device)
    output = encoder.base(input_ids=ids, attention_mask=torch.ones_like(ids))
    return cast(Tensor, output.last_hidden_state[0])


def _check_own_head(
    encoder: Encoder, texts: Sequence[EncodedText], batch: TextBatch, folder: Path
) -> None:
    """Whether the head gives what transformers' classifier does."""
    assert encoder.classifier is not None, "it has the head"
    implementation = encoder.base.config._attn_implementation
    found = encoder.logits(batch)
    if encoder.base._can_set_attn_implementation():
        encoder.base.set_attn_implementation("eager")
    expected = torch.cat(
        [encoder.classifier(torch.tensor([t.input_ids], device=encoder.device)).logits
         for t in texts]
    ).float()  # fmt: skip
    if encoder.base._can_set_attn_implementation():
        encoder.base.set_attn_implementation(implementation)
    difference = _difference(found, expected)
    tolerance = LOGITS_TOLERANCE.get(encoder.base.dtype, 0.1)
    if not difference <= tolerance:
        raise ModelError(
            f"{encoder.base.config.model_type} models answer in a way that is not computed here "
            f"(by {difference:.2g} of the largest)",
            where=str(folder),
            advice="set method.head to pooled: a linear layer on the text's vector",
        )


def _difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    if found.shape != expected.shape:
        return float("inf")
    return ((found - expected).abs().max() / expected.abs().max()).item()
