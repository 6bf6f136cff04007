"""A model folder becomes a model that runs flat batches.

Loads safetensors weights through transformers' modelling code, frozen, in the precision asked for,
and offers the two things the rest needs: hidden states of a flat batch, and the head. Before the
model is used, one small flat batch is compared with plain attention: an architecture whose
attention the flat form does not reproduce is refused, not guessed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from luthier.errors import ModelError
from luthier.models import attention
from luthier.models.flat import FlatBatch, pack
from luthier.models.head import Head, HeadLoss, head_loss, token_losses
from luthier.models.lean import make_lean
from luthier.models.quantizing import four_bits

PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6, torch.bfloat16: 0.1}
"""Largest relative difference of hidden states between flat and plain attention, by precision."""


@dataclass
class LanguageModel:
    """A causal language model and where it computes."""

    network: nn.Module
    """The transformers model, possibly with adapters attached."""
    base: PreTrainedModel
    """The transformers model inside `network`."""
    device: torch.device

    def hidden_states(self, batch: FlatBatch) -> Tensor:
        """Final hidden states [T, H] of a flat batch."""
        return self.run(batch.input_ids, batch.position_ids, flat_layout=batch.layout)

    def run(self, input_ids: Tensor, position_ids: Tensor, **attention_state: object) -> Tensor:
        """Final hidden states [T, H]; attention_state reaches the flat attention function."""
        output = self.base.base_model(
            input_ids=input_ids[None],
            position_ids=position_ids[None],
            use_cache=False,
            **attention_state,
        )
        return output.last_hidden_state[0]  # type: ignore[no-any-return]

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The model as it was before tuning."""
        if isinstance(self.network, PeftModel):
            with self.network.disable_adapter():
                yield
        else:
            yield

    @property
    def head(self) -> Head:
        """What turns hidden states into logits."""
        layer, config = self.base.get_output_embeddings(), self.base.config
        return Head(
            layer.weight,
            getattr(layer, "bias", None),
            float(getattr(config, "logit_scale", None) or 1.0)
            / float(getattr(config, "logits_scaling", None) or 1.0),
            getattr(config, "final_logit_softcapping", None),
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] in float32 of hidden states [N, H]."""
        return self.head.logits(hidden).float()

    def loss(self, batch: FlatBatch, weights: Tensor | None = None) -> HeadLoss:
        """Loss of the batch's predictions; weights [S] default to ones."""
        weights = torch.ones(len(batch.targets), device=self.device) if weights is None else weights
        hidden = self.hidden_states(batch)[batch.index]
        return head_loss(hidden, self.head, batch.targets, weights)

    def answer_logprobs(self, batch: FlatBatch) -> Tensor:
        """Log-likelihood in nats of each sequence's supervised tokens [n], differentiable."""
        hidden = self.hidden_states(batch)[batch.index]
        losses = token_losses(hidden, self.head, batch.targets)
        sums = torch.zeros(batch.num_sequences, device=self.device, dtype=losses.dtype)
        return -sums.index_add(0, batch.owners, losses)


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    allow_remote_code: bool = False,
    quantize: Literal["none", "nf4"] = "none",
) -> LanguageModel:
    """Load a causal language model with frozen weights, ready for flat batches.

    Raises ModelError when the folder is no causal language model, or its attention cannot run flat.
    """
    attention.register()
    transformers_logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention.FLAT,
            use_safetensors=True,
            trust_remote_code=allow_remote_code,
            local_files_only=True,
            quantization_config=four_bits(dtype) if quantize == "nf4" else None,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"cannot be loaded as a language model: {error}",
            where=str(folder),
            accepted="a causal language model of an architecture transformers knows",
        ) from error
    model.requires_grad_(False)
    model.eval()
    loaded = LanguageModel(model, model, device)
    _check_head(loaded, folder)
    if quantize == "none":
        model.to(device)  # type: ignore[arg-type] # transformers' decorator hides the signature
    rows = _probe_rows()
    plain = _plain_hidden(loaded, rows)
    if device.type == "cpu":
        make_lean(model)
    _prove_flat(loaded, rows, plain, folder)
    return loaded


def _check_head(model: LanguageModel, folder: Path) -> None:
    if model.base.get_output_embeddings() is None:
        raise ModelError("has no language-model head", where=str(folder))


def _probe_rows() -> list[list[int]]:
    """A forest of three short sequences, two of which begin alike."""
    start = [7, 3, 11, 5, 2, 13, 17, 19, 23]
    return [[*start, 4, 9, 6], [*start, 8, 1], [5, 12, 3, 8]]


@torch.no_grad()
def _plain_hidden(model: LanguageModel, rows: list[list[int]]) -> Tensor:
    """Hidden states [N, H] before the last id of each row, by transformers alone."""
    try:
        model.base.set_attn_implementation("eager")
        return torch.stack([_last_hidden(model, row[:-1]) for row in rows])
    finally:
        model.base.set_attn_implementation(attention.FLAT)


@torch.no_grad()
def _prove_flat(model: LanguageModel, rows: list[list[int]], plain: Tensor, folder: Path) -> None:
    """Compare hidden states of the rows as one flat batch with the plain ones."""
    labels = [[-100] * (len(row) - 1) + row[-1:] for row in rows]
    batch = pack(rows, labels).to(model.device)
    flat = model.hidden_states(batch)[batch.index]
    difference = ((flat - plain).abs().max() / plain.abs().max()).item()
    if not difference <= PROBE_TOLERANCE.get(flat.dtype, 0.1):
        raise ModelError(
            f"attention of {model.base.config.model_type!r} comes out differently without padding "
            f"(relative difference {difference:.2g})",
            where=str(folder),
            advice="choose another architecture; Llama and Qwen families are known to work",
        )


def _last_hidden(model: LanguageModel, ids: list[int]) -> Tensor:
    """Hidden state [H] after the last id, by transformers' own attention."""
    output = model.base.base_model(
        input_ids=torch.tensor([ids], device=model.device), use_cache=False
    )
    return output.last_hidden_state[0, -1]  # type: ignore[no-any-return]
