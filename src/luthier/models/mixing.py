"""Many adapters over one base model: each row of a batch is computed with its own.

The base's products are shared by all rows. What an adapter adds, (x A^T) B^T, is computed for its
rows only (Chen et al. 2023, "Punica"; Sheng et al. 2023, "S-LoRA").
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path

from torch import Tensor, nn

from luthier.errors import ModelError
from luthier.models.adapters import LeanLoraLinear, load_adapter
from luthier.models.loading import LanguageModel
from luthier.models.products import product

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
        network = load_adapter(self._model.base, folder)
        try:
            found: Matrices = {}
            for full_name, layer in network.get_base_model().named_modules():
                if isinstance(layer, LeanLoraLinear):
                    found[full_name] = layer.matrices()
            kinds = {type(m).__name__ for m in network.modules()}
            if "ModulesToSaveWrapper" in kinds or not found:
                raise ModelError("has more than plain adapters", where=str(folder))
        finally:
            self._model.base = network.unload()
            self._model.network = self._model.base
        self._adapters[name] = found

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        self._adapters.pop(name, None)

    def num_bytes(self, name: str) -> int:
        """Memory of an adapter."""
        pairs = self._adapters[name].values()
        return sum(x.numel() * x.element_size() for pair in pairs for x in pair)

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
