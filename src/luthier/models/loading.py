"""A model folder becomes a model that runs flat batches.

Loads safetensors weights through transformers' modelling code, frozen, in the precision asked for,
and offers the two things the rest needs: hidden states of a flat batch, and the head. Before the
model is used, one small flat batch is compared with transformers' own computation: an architecture
that the flat form does not reproduce runs padded, and says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from luthier.errors import ConfigError, ModelError
from luthier.models import attention, head_kernels
from luthier.models.blocks import narrow_last
from luthier.models.devices import probe_devices
from luthier.models.flat import FlatBatch, pack
from luthier.models.head import Head, HeadLoss, head_loss, head_of, token_losses
from luthier.models.head_kernels import HeadKernel
from luthier.models.lean import compile_kernels, make_lean
from luthier.models.padded import unfold
from luthier.models.quantizing import four_bits, keep_differentiable

T = TypeVar("T")

PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6, torch.bfloat16: 0.1}
"""Largest relative difference of hidden states between flat and plain attention, by precision."""
LOGITS_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.bfloat16: 0.02}
"""Likewise of logits from equal hidden states, ours in float32; a cap that is left out is more."""


@dataclass
class LanguageModel:
    """A causal language model and where it computes."""

    network: nn.Module
    """The transformers model, possibly with adapters attached."""
    base: PreTrainedModel
    """The transformers model inside `network`."""
    device: torch.device
    padded_because: str = ""
    """Why flat batches are computed as padded rows; empty where they are computed flat."""
    root: nn.Module | None = None
    """What a model spread over processes computes in; see `sharding`."""
    head_kernel: HeadKernel | None = None
    """What computes the loss in training, once that is chosen."""

    def predicting_states(self, batch: FlatBatch) -> Tensor:
        """Final hidden states [S, H] of the tokens of a flat batch that predict its targets."""
        return self._hidden_states(batch)[batch.index]

    def _hidden_states(self, batch: FlatBatch) -> Tensor:
        """Final hidden states [T, H]; those of tokens that predict nothing may be anything."""
        if self.padded_because:
            rows = unfold(batch)
            output = self.base.base_model(
                input_ids=rows.input_ids, attention_mask=rows.mask, use_cache=False
            )
            return output.last_hidden_state.flatten(0, 1)[rows.places]  # type: ignore[no-any-return]
        return self.run(
            batch.input_ids,
            batch.position_ids,
            flat_layout=batch.layout,
            predicting=batch.predicting,
        )

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
        return head_of(self.base.get_output_embeddings(), self.base.config.get_text_config())

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] in float32 of hidden states [N, H]."""
        return self.head.logits(hidden).float()

    def loss(self, batch: FlatBatch, weights: Tensor | None = None) -> HeadLoss:
        """Loss of the batch's predictions; weights [S] default to ones."""
        shares = torch.ones(len(batch.targets), device=self.device) if weights is None else weights

        def compute() -> HeadLoss:
            hidden = self.predicting_states(batch)
            return head_loss(hidden, self.head, batch.targets, shares)

        return self._within_root(compute)

    def summed_loss(self, batch: FlatBatch) -> tuple[Tensor, Tensor | None]:
        """Sum of the losses of the batch's predictions, by the fastest kernel there is.

        And the sum of each sequence's [n], detached, where that kernel says them.
        """

        def compute() -> tuple[Tensor, Tensor | None]:
            hidden = self.predicting_states(batch)
            if self.head_kernel is None:
                self.head_kernel = head_kernels.choose(hidden, self.head, batch.targets)
            total, each = self.head_kernel(hidden, self.head, batch.targets)
            return total, None if each is None else self._by_sequence(each, batch)

        return self._within_root(compute)

    def answer_logprobs(self, batch: FlatBatch) -> Tensor:
        """Log-likelihood in nats of each sequence's supervised tokens [n], differentiable."""

        def compute() -> Tensor:
            hidden = self.predicting_states(batch)
            return -self._by_sequence(token_losses(hidden, self.head, batch.targets), batch)

        return self._within_root(compute)

    def _by_sequence(self, losses: Tensor, batch: FlatBatch) -> Tensor:
        """Losses [S] of predictions, summed over each sequence [n]."""
        sums = torch.zeros(batch.num_sequences, device=self.device, dtype=losses.dtype)
        return sums.index_add(0, batch.owners, losses)

    def _within_root(self, compute: Callable[[], T]) -> T:
        return compute() if self.root is None else self.root(compute)


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    allow_remote_code: bool = False,
    quantize: Literal["none", "nf4"] = "none",
) -> LanguageModel:
    """Load a causal language model with frozen weights, ready for flat batches.

    Raises ModelError when the folder is no causal language model, or does not compute here what it
    computes in transformers.
    """
    attention.register()
    quantization = four_bits(dtype) if quantize == "nf4" else None
    transformers_logging.disable_progress_bar()
    with reading_model(folder):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=allow_remote_code,
            local_files_only=True,
            quantization_config=quantization,
            # What is quantised stays where it is put, by itself on a GPU.
            device_map={"": device} if quantization else None,
        )
    model.requires_grad_(False)
    model.eval()
    keep_differentiable(model)
    loaded = LanguageModel(model, model, device)
    _check_head(loaded, folder)
    if quantize == "none":
        model.to(device)  # type: ignore[arg-type] # transformers' decorator hides the signature
    silence_dropout(model)
    rows = _probe_rows()
    plain = _plain_hidden(loaded, rows)
    _check_logits(loaded, rows[-1], plain[-1], folder)
    narrow_last(model)
    if device.type == "cpu":  # on a GPU they pay once compiled
        make_lean(model)
    loaded.padded_because = _why_not_flat(loaded, rows, plain)
    if loaded.padded_because:
        _pad(loaded, rows, plain, folder)
    return loaded


def outline(folder: Path, *, allow_remote_code: bool = False) -> PreTrainedModel:
    """The modules of a model folder, their weights without content.

    Raises ModelError when the folder is no causal language model.
    """
    with reading_model(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(
            folder, trust_remote_code=allow_remote_code, local_files_only=True
        )
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, trust_remote_code=allow_remote_code
        )
    return model


@contextmanager
def reading_model(folder: Path) -> Iterator[None]:
    """Within, what transformers says of a model folder becomes a ModelError."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"cannot be loaded: {error}",
            where=str(folder),
            accepted="a model of the kind the method needs, of an architecture transformers knows",
        ) from error


@contextmanager
def compiled_lean(model: LanguageModel) -> Iterator[None]:
    """Within, norms and gated activations of this process are computed as compiled kernels.

    Load no bfloat16 model meanwhile: kernels round elsewhere than transformers does, which over 30
    blocks can be more than its probe allows (SmolLM2: 0.15 of the largest; in float32 1e-6).
    A model is spread over processes within, not before: its modules are probed here.
    Raises ConfigError when they cannot be compiled here.
    """
    if not probe_devices().can_compile:
        raise ConfigError(
            "there is nothing to compile with",
            where="runtime.compile",
            accepted="never, or always with a C++ compiler and Python's headers (on a GPU: Triton)",
            advice="run luthier doctor to see what is there",
        )
    make_lean(model.base)
    compile_kernels(compiled=True)
    try:
        yield
    finally:
        compile_kernels(compiled=False)


def silence_dropout(network: nn.Module) -> None:
    """Turn off what dropout the architecture has of its own: only the recipe's is used.

    Some old architectures drop a tenth of everything by default, which would make a shared prompt
    and a separate one differ, and the first loss unlike the model's own. Rates are kept by layers,
    by blocks (OPT), or read from the configuration at every call (Falcon).
    """
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        _drop_nothing(module)
        if hasattr(module, "config"):
            _drop_nothing(module.config)


def _drop_nothing(owner: object) -> None:
    """Set the rates among an object's attributes to zero."""
    for name, value in list(vars(owner).items()):
        if "drop" in name and isinstance(value, float):
            setattr(owner, name, 0.0)


def _check_head(model: LanguageModel, folder: Path) -> None:
    if model.base.get_output_embeddings() is None:
        raise ModelError("has no language-model head", where=str(folder))


def _probe_rows() -> list[list[int]]:
    """A forest of three short sequences, two of which begin alike."""
    start = [7, 3, 11, 5, 2, 13, 17, 19, 23]
    return [[*start, 4, 9, 6], [*start, 8, 1], [5, 12, 3, 8]]


def _probe_batches(rows: list[list[int]], device: torch.device) -> list[FlatBatch]:
    """Batches in which the last id of each row is predicted, for every kernel of a device."""
    labels = [[-100] * (len(row) - 1) + row[-1:] for row in rows]
    # A GPU has one for what shares beginnings, and may have another for what does not.
    shares = (True, False) if device.type == "cuda" else (True,)
    return [pack(rows, labels, share=share) for share in shares]


@torch.no_grad()
def _plain_hidden(model: LanguageModel, rows: list[list[int]]) -> Tensor:
    """Hidden states [N, H] before the last id of each row, by transformers alone."""
    return torch.stack([_last_hidden(model, row[:-1]) for row in rows])


@torch.no_grad()
def _check_logits(model: LanguageModel, row: list[int], plain: Tensor, folder: Path) -> None:
    """Whether the head gives the model's own logits of the hidden state before a row's last id."""
    ids = torch.tensor([row[:-1]], device=model.device)
    expected = model.base(input_ids=ids, use_cache=False).logits[0, -1:].float()
    difference = _difference(model.logits(plain[None]), expected)
    if not difference <= LOGITS_TOLERANCE.get(plain.dtype, 0.02):
        raise ModelError(
            f"{model.base.config.model_type} models make logits of hidden states in a way that is "
            f"not computed here (they differ by {difference:.2g} of the largest)",
            where=str(folder),
            advice="choose another architecture; Llama and Qwen families are known to work",
        )


@torch.no_grad()
def _why_not_flat(model: LanguageModel, rows: list[list[int]], plain: Tensor) -> str:
    """What keeps rows from coming out in a flat batch as they do by themselves, or nothing."""
    kind = model.base.config.model_type
    if not model.base._can_set_attn_implementation():
        return f"{kind} models compute attention in a way of their own"
    model.base.set_attn_implementation(attention.FLAT)
    batches = _probe_batches(rows, model.device)
    try:
        found = [model.predicting_states(batch.to(model.device)) for batch in batches]
    except (ModelError, TypeError, RuntimeError) as error:
        return f"{kind} models cannot run without padding: {str(error).splitlines()[0]}"
    difference = _difference(torch.cat(found), plain.repeat(len(found), 1))
    if difference <= PROBE_TOLERANCE.get(plain.dtype, 0.1):
        return ""
    return (
        f"{kind} models come out differently without padding (by {difference:.2g} of the largest)"
    )


@torch.no_grad()
def _pad(model: LanguageModel, rows: list[list[int]], plain: Tensor, folder: Path) -> None:
    """Let the model run padded rows; ModelError when not even they come out right."""
    # transformers' sdpa knows no cap on scores.
    has_cap = getattr(model.base.config.get_text_config(), "attn_logit_softcapping", None)
    is_fast = model.base._supports_sdpa and not has_cap
    if model.base._can_set_attn_implementation():
        model.base.set_attn_implementation("sdpa" if is_fast else "eager")
    batch = _probe_batches(rows, model.device)[0]
    difference = _difference(model.predicting_states(batch.to(model.device)), plain)
    if not difference <= PROBE_TOLERANCE.get(plain.dtype, 0.1):
        raise ModelError(
            f"{model.padded_because}, and also with padding (by {difference:.2g})",
            where=str(folder),
            advice="choose another architecture; Llama and Qwen families are known to work",
        )


def _difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    if found.shape != expected.shape:
        return float("inf")
    return ((found - expected).abs().max() / expected.abs().max()).item()


def _last_hidden(model: LanguageModel, ids: list[int]) -> Tensor:
    """Hidden state [H] after the last id, by transformers' own attention."""
    output = model.base.base_model(
        input_ids=torch.tensor([ids], device=model.device), use_cache=False
    )
    return output.last_hidden_state[0, -1]  # type: ignore[no-any-return]
