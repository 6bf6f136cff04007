"""LoRA on a frozen model, through PEFT, computed in the frozen weights' precision.

PEFT keeps the adapter's weights in float32 and would convert every input to float32 for them;
`LeanLoraLinear` converts the two small matrices to the input's dtype instead, which is several
times less work on a CPU with bfloat16 instructions. What is saved is an ordinary PEFT adapter.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from luthier.errors import ModelError
from luthier.models.lean import lora_linear
from luthier.models.loading import LanguageModel
from luthier.recipe import LoRA


class LeanLoraLinear(LoraLinear):
    """PEFT's LoRA layer with the adapter's product computed in the input's dtype."""

    _kept: tuple[Tensor, Tensor] | None = None
    _keeps = False

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        names = [name for name in self.active_adapters if name in self.lora_A]
        is_plain = len(names) == 1 and not self.lora_variant and not self.disable_adapters
        if not is_plain or self.merged or kwargs:
            return super().forward(x, *args, **kwargs)
        (name,) = names
        base: Any = self.base_layer
        a: Any = self.lora_A[name].weight
        b: Any = self.lora_B[name].weight
        if torch.is_grad_enabled() and self._is_frozen_plainly(name):
            return lora_linear(x, base.weight, base.bias, a, b, self.scaling[name])
        down, up = self._matrices(name, x.dtype)
        inner = functional.linear(self.lora_dropout[name](x), down)
        return cast(Tensor, base(x) + functional.linear(inner, up))

    def _is_frozen_plainly(self, name: str) -> bool:
        """Whether the layer is a frozen matrix with an adapter that drops nothing."""
        base, drops = self.base_layer, self.lora_dropout[name]
        is_plain = type(base) is nn.Linear and not base.weight.requires_grad
        return is_plain and isinstance(drops, nn.Identity)

    def _matrices(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A, and B times the scale, in the input's dtype."""
        if self._kept is not None:
            return self._kept
        down = cast(Tensor, self.lora_A[name].weight).to(dtype)
        up = (cast(Tensor, self.lora_B[name].weight) * self.scaling[name]).to(dtype)
        if self._keeps:
            self._kept = (down, up)
        return down, up

    def keep_matrices(self, keeps: bool) -> None:
        """Convert the matrices once and keep them, or convert them at every call again."""
        self._keeps, self._kept = keeps, None


@contextmanager
def fixed_adapters(network: nn.Module) -> Iterator[None]:
    """Within, adapters do not change, so that each is converted once instead of at every token."""
    layers = [module for module in network.modules() if isinstance(module, LeanLoraLinear)]
    try:
        for layer in layers:
            layer.keep_matrices(True)
        yield
    finally:
        for layer in layers:
            layer.keep_matrices(False)


def attach(model: PreTrainedModel, lora: LoRA, seed: int) -> PeftModel:
    """Freeze the model and add trainable float32 adapters; equal seeds start equal adapters.

    Raises ModelError when a target names no linear layer.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] # PEFT divides it; floats are fine
        lora_dropout=lora.dropout,
        target_modules=_targets(model, lora),
    )
    config._register_custom_module({nn.Linear: LeanLoraLinear})
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for an attribute under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.manual_seed(seed)
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def _targets(model: PreTrainedModel, lora: LoRA) -> list[str]:
    """Names of the linear layers that get an adapter, without the head."""
    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if lora.targets == "all-linear":
        return sorted(names)
    unknown = sorted(set(lora.targets) - names)
    if unknown:
        raise ModelError(
            f"this model has no linear layer called {', '.join(unknown)}",
            where="lora.targets",
            accepted=f"all-linear, or some of {', '.join(sorted(names))}",
        )
    return list(lora.targets)


def save_adapter(model: LanguageModel, folder: Path) -> None:
    """Write the adapter of a model as an ordinary PEFT adapter (safetensors) into a folder."""
    assert isinstance(model.network, PeftModel), "the model has an adapter"
    model.network.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The frozen model with a saved adapter on it, for prediction.

    Raises ModelError when the folder holds no adapter for this model.
    """
    try:
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        config._register_custom_module({nn.Linear: LeanLoraLinear})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return PeftModel.from_pretrained(model, str(folder), config=config)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"holds no usable adapter: {error}", where=str(folder)) from error


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of everything that learns, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
