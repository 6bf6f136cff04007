"""What learns: low-rank adapters on a frozen model, all of its weights, or some of them.

LoRA goes through PEFT, computed in the frozen weights' precision. PEFT keeps the adapter's weights
in float32 and would convert every input to float32 for them; `LeanLoraLinear` converts the two
small matrices to the input's dtype instead, which is several times less work on a CPU with bfloat16
instructions. What is saved is an ordinary PEFT adapter.
"""

import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier.errors import ConfigError, ModelError
from luthier.models.blocks import blocks_of, last_blocks, text_part
from luthier.models.joint import Joint, join_layers
from luthier.models.lean import Adapted, adapted_linears
from luthier.models.loading import LanguageModel
from luthier.models.products import is_quick, product
from luthier.models.rounding import round_evenly
from luthier.recipe import Embeddings, Full, LastLayers, LoRA, Tuning, settled


class LeanLoraLinear(LoraLinear):
    """PEFT's LoRA layer with the adapter's product computed in the input's dtype."""

    joint: Joint | None = None
    """Computes this layer with those that are given the same input."""
    _kept: tuple[Tensor, Tensor] | None = None
    _keeps = False

    def __init__(self, base_layer: nn.Module, adapter_name: str, **settings: Any) -> None:
        is_conv = isinstance(base_layer, Conv1D)
        super().__init__(base_layer, adapter_name, is_target_conv_1d_layer=is_conv, **settings)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = self._only()
        if name is None or kwargs:
            return super().forward(x, *args, **kwargs)
        if torch.is_grad_enabled():
            if self.joint and (output := self.joint.output(self, x)) is not None:
                return output
            if layer := self.adapted(x.dtype):
                return adapted_linears(x, layer)[0]
        down, up = self._matrices(name, x.dtype)
        inner, plain = functional.linear(self.lora_dropout[name](x), down), self._plain()
        if plain is None:
            return cast(Tensor, self.base_layer(x) + functional.linear(inner, up))
        if is_quick(x, plain[0]):
            return product(x, *plain) + product(inner, up)
        output = Adapted(*plain, down, up).output(x.flatten(0, -2), inner.flatten(0, -2))
        return output.view(*x.shape[:-1], -1)

    def adapted(self, dtype: torch.dtype) -> Adapted | None:
        """The matrices, if the layer is a plain frozen one with one adapter that drops nothing."""
        name, plain = self._only(), self._plain()
        if name is None or plain is None or any(p is not None and p.requires_grad for p in plain):
            return None
        if not isinstance(self.lora_dropout[name], nn.Identity):
            return None
        return Adapted(*plain, *self._matrices(name, dtype))

    def _plain(self) -> tuple[Tensor, Tensor | None] | None:
        """The layer's own weight [O, I] and bias; None when they are kept in 4 bits."""
        base: Any = self.base_layer
        if type(base) is Conv1D:
            return base.weight.t(), base.bias
        return (base.weight, base.bias) if type(base) is nn.Linear else None

    def _only(self) -> str | None:
        """The adapter that is added to the layer, if it is one of the plain kind."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        is_plain = len(names) == 1 and not self.lora_variant and not self.disable_adapters
        if not is_plain or self.merged or self.lora_bias[names[0]]:
            return None
        return cast(str, names[0])

    def _matrices(self, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """A, and B times the scale, in the input's dtype."""
        if self._kept is not None:
            return self._kept
        down = cast(Tensor, self.lora_A[name].weight).to(dtype)
        up = (cast(Tensor, self.lora_B[name].weight) * self.scaling[name]).to(dtype)
        if self._keeps:
            self._kept = (down, up)
        return down, up

    def matrices(self) -> tuple[Tensor, Tensor]:
        """A [R, I], and B [O, R] times its scale. Raises ModelError where it is not so plain."""
        name = self._only()
        if name is None or self._plain() is None:
            raise ModelError("an adapter of this kind cannot be taken apart")
        down, up = self._matrices(name, self._plain_dtype())
        return down.detach().clone(), up.detach().clone()

    def _plain_dtype(self) -> torch.dtype:
        plain = self._plain()
        assert plain is not None, "asked before"
        return plain[0].dtype

    def keep_matrices(self, keeps: bool) -> None:
        """Convert the matrices once and keep them, or convert them at every call again."""
        self._keeps, self._kept = keeps, None


LEAN_LAYERS: dict[type[nn.Module], type[nn.Module]] = dict.fromkeys(
    (nn.Linear, Conv1D), LeanLoraLinear
)
"""For PEFT: kind of layer -> what it becomes with an adapter."""


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


def make_trainable(model: LanguageModel, tuning: Tuning, seed: int) -> None:
    """Thaw or add the weights that are to learn; equal seeds start equal adapters.

    A model that already carries a trainable adapter keeps it. Raises ModelError when the tuning
    names what the model does not have.
    """
    if isinstance(tuning, LoRA):
        if not isinstance(model.network, PeftModel):
            model.network = attach_adapters(
                model.base, linear_layers(model.base), tuning, seed, "CAUSAL_LM"
            )
    elif isinstance(tuning, Full):
        for part in (text_part(model.base), model.base.get_output_embeddings()):
            part.requires_grad_(True)
    elif isinstance(tuning, Embeddings):
        model.base.get_input_embeddings().requires_grad_(True)
    elif isinstance(tuning, LastLayers):
        _thaw_last(model.base, tuning.count)
    else:
        raise ConfigError(
            "a model that writes has no head that could learn alone",
            where="tuning.kind",
            accepted="lora, full, last-layers or embeddings",
        )


def check_tuning(model: PreTrainedModel, tuning: Tuning) -> None:
    """Raise ModelError when the tuning names what the model does not have; its weights may be
    anywhere, or nowhere yet."""
    if isinstance(tuning, LoRA):
        ranks_of(linear_layers(model), tuning)
    elif isinstance(tuning, LastLayers):
        last_blocks(model, tuning.count)


def attach_adapters(
    model: PreTrainedModel, layers: dict[str, nn.Module], lora: LoRA, seed: int, task: str
) -> PeftModel:
    """The frozen model with trainable float32 adapters on the layers that the recipe means.

    `task` is PEFT's word for what the model does. Raises ModelError.
    """
    ranks = ranks_of(layers, lora)
    rank = max(ranks.values())
    different = {re.escape(name): r for name, r in ranks.items() if r != rank}
    config = LoraConfig(
        task_type=task,
        r=rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] # PEFT divides it; floats are fine
        lora_dropout=lora.dropout,
        target_modules=shortest_names(ranks, model),
        rank_pattern=different,
        use_rslora="rslora" in lora.variants,
        use_dora="dora" in lora.variants,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )
    config._register_custom_module(LEAN_LAYERS)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 for an attribute under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.manual_seed(seed)
        network = get_peft_model(model, config, autocast_adapter_dtype=True)
    join_layers(network, LeanLoraLinear)
    return cast(PeftModel, network)


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Full name -> linear layer of the text part, without the head."""
    found = set(text_part(model).modules()) - {model.get_output_embeddings()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module in found
    }


def ranks_of(layers: dict[str, nn.Module], lora: LoRA) -> dict[str, int]:
    """Full name of each of these layers that gets an adapter -> its rank. Raises ModelError."""
    rank = settled(lora.rank)
    if lora.targets == "all-linear":
        ranks = dict.fromkeys(layers, rank)
    else:
        wanted = (
            lora.targets if isinstance(lora.targets, dict) else dict.fromkeys(lora.targets, rank)
        )
        ranks = {}
        for pattern, own in wanted.items():
            matching = [name for name in layers if _matches(name, pattern)]
            if not matching:
                raise _no_such_layer(pattern, layers)
            ranks |= dict.fromkeys(matching, own)
    for name, own in ranks.items():
        smallest = _smaller_side(layers[name])
        if own > smallest:
            raise ModelError(
                f"rank {own} is larger than {name}, whose smaller side is {smallest}",
                where="tuning.rank",
                accepted=f"at most {smallest} for this layer",
            )
    return ranks


def _smaller_side(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):  # whose weights in 4 bits have another shape
        return min(layer.in_features, layer.out_features)
    return min(cast(Tensor, layer.weight).shape)


def _matches(name: str, pattern: str) -> bool:
    """Whether a layer's full name ends in the pattern, by whole parts; * stands for anything."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[i:]), pattern) for i in range(len(parts)))


def _no_such_layer(pattern: str, layers: Iterable[str]) -> ModelError:
    known = sorted({name.rsplit(".", 1)[-1] for name in layers})
    return ModelError(
        f"this model has no linear layer called {pattern}",
        where="tuning.targets",
        accepted=f"all-linear, or some of {', '.join(known)}, or longer names such as "
        f"{next(iter(layers))} with * for anything",
    )


def shortest_names(ranks: dict[str, int], model: PreTrainedModel) -> list[str]:
    """Target names for PEFT: last parts where they say the same as the full names."""
    short = {name.rsplit(".", 1)[-1] for name in ranks}
    meant = {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in short}
    return sorted(short if meant == set(ranks) else ranks)


def _thaw_last(model: PreTrainedModel, count: int) -> None:
    """Let the last blocks and the final norm learn."""
    for block in last_blocks(model, count):
        block.requires_grad_(True)
    name, _ = blocks_of(model)
    # What stands beside the blocks and is no embedding: the final norm.
    beside = [m for n, m in text_part(model).named_children() if n != name.split(".")[0]]
    for module in beside:
        if not any(isinstance(part, nn.Embedding) for part in module.modules()):
            module.requires_grad_(True)


def save_adapter(model: LanguageModel, folder: Path) -> None:
    """Write the adapter of a model as an ordinary PEFT adapter (safetensors) into a folder."""
    assert isinstance(model.network, PeftModel), "the model has an adapter"
    model.network.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


def save_model(model: LanguageModel, folder: Path, source: Path) -> None:
    """Write a whole model as a folder like `source`: its weights (safetensors) and other files."""
    model.base.save_pretrained(str(folder))
    for file in source.iterdir():
        is_written = (folder / file.name).exists() and file.name != "config.json"
        is_weights = file.suffix in (".safetensors", ".bin", ".gguf") or ".index." in file.name
        if file.is_file() and not is_written and not is_weights:
            shutil.copyfile(file, folder / file.name)


def load_adapter(model: PreTrainedModel, folder: Path, *, is_trainable: bool = False) -> PeftModel:
    """The frozen model with a saved adapter on it, for prediction or to go on learning.

    Raises ModelError when the folder holds no adapter for this model.
    """
    try:
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = not is_trainable
        config._register_custom_module(LEAN_LAYERS)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            network = PeftModel.from_pretrained(
                model, str(folder), config=config, is_trainable=is_trainable
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"holds no usable adapter: {error}", where=str(folder)) from error
    join_layers(network, LeanLoraLinear)
    return network


@torch.no_grad()
def merge_adapter(model: LanguageModel, folder: Path) -> None:
    """Add a saved adapter's update to the weights, rounded once to their precision."""
    network = load_adapter(model.base, folder)
    for layer in network.modules():
        if isinstance(layer, LoraLinear):
            _merge(layer)
    model.base = network.unload()
    model.network = model.base
    model.base.requires_grad_(False)


def _merge(layer: LoraLinear) -> None:
    base = layer.get_base_layer()
    rounds = [p for p in base.parameters() if p.dtype == torch.bfloat16]
    for weight in rounds:
        weight.data = weight.data.float()
    layer.merge()
    for weight in rounds:
        weight.data = round_evenly(weight.data)
