"""Many adapters over one base model: each row of a batch is computed with its own.

The base's products are shared by all rows. What an adapter adds, (x A^T) B^T, is computed for its
rows only (Chen et al. 2023, "Punica"; Sheng et al. 2023, "S-LoRA").
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from luthier.errors import ModelError
from luthier.models.adapters import LeanLoraLinear, load_adapter, make_trainable
from luthier.models.loading import LanguageModel
from luthier.models.products import product
from luthier.models.trained import trained_parameters
from luthier.recipe import LoRA

Matrices = dict[str, tuple[Tensor, Tensor]]
"""Of an adapter: name of a layer -> A [R, I], and B [O, R] times its scale."""


class MixedAdapters:
    """The adapters of a base model, and which rows of the next batch each is for."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._adapters: dict[str, Matrices] = {}
        self._runs: list[tuple[str, slice]] = []

    @property
    def names(self) -> frozenset[str]:
        """The adapters there are."""
        return frozenset(self._adapters)

    def add(self, name: str, folder: Path) -> None:
        """Read a saved adapter. Raises ModelError where it is none that can be mixed."""
        self._model.network = load_adapter(self._model.base, folder)
        self._take(name, str(folder))

    def add_trained(self, name: str, tuning: LoRA, file: Path) -> None:
        """Read the weights of an adapter in training, as its checkpoint holds them.

        Raises ModelError where they are not those of this tuning.
        """
        make_trainable(self._model, tuning, seed=0)
        weights = trained_parameters(self._model.network)
        found = load_file(file)
        if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in found.items()}:
            self._detach()
            raise ModelError("holds no adapter of this model", where=str(file))
        for own_name, weight in weights.items():
            weight.data.copy_(found[own_name])
        self._take(name, str(file))

    def _take(self, name: str, where: str) -> None:
        """Keep the matrices of the adapter that is on the model, and take it off."""
        try:
            layers = {
                full_name.removeprefix("base_model.model."): layer
                for full_name, layer in self._model.network.named_modules()
                if isinstance(layer, LeanLoraLinear)
            }
            kinds = {type(module).__name__ for module in self._model.network.modules()}
            if "ModulesToSaveWrapper" in kinds or not layers:
                raise ModelError("has more than plain adapters", where=where)
            self._adapters[name] = {own: layer.matrices() for own, layer in layers.items()}
        finally:
            self._detach()

    def _detach(self) -> None:
        self._model.base = self._model.network.unload()  # type: ignore[operator]
        self._model.base.requires_grad_(False)
        self._model.network = self._model.base

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        self._adapters.pop(name, None)

    def assign(self, names: Sequence[str]) -> None:
        """The next batch's tokens are for these adapters; an empty name is the base itself."""
        self._runs, start = [], 0
        for name, run in groupby(names):
            end = start + len(list(run))
            if name:
                self._runs.append((name, slice(start, end)))
            start = end

    @contextmanager
    def mixed(self) -> Iterator[None]:
        """Within, the model's linear layers add what the adapters assigned add."""
        layers = {
            name: layer for name, layer in self._model.base.named_modules()
            if type(layer) is nn.Linear and layer is not self._model.base.get_output_embeddings()
        }  # fmt: skip
        try:
            for name, layer in layers.items():
                layer.forward = partial(self._forward, name, layer)  # type: ignore[method-assign]
            yield
        finally:
            for layer in layers.values():
                del layer.forward

    def _forward(self, name: str, layer: nn.Linear, x: Tensor) -> Tensor:
        found = product(x, layer.weight, layer.bias)
        rows, flat = x.flatten(0, -2), found.flatten(0, -2)
        for adapter, run in self._runs:
            if matrices := self._adapters[adapter].get(name):
                down, up = matrices
                flat[run].addmm_(rows[run] @ down.t(), up.t())
        return found
