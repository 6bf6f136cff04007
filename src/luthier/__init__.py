"""Fine-tune a language model, and know whether it helped.

    import luthier

    tuned = luthier.tune(model="path/or/hub-id", data="rows.jsonl")
    print(tuned.verdict.paragraph)
    print(tuned.open().ask("a question"))

Importing loads nothing heavy; each name loads its module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from luthier.errors import LuthierError

if TYPE_CHECKING:
    from luthier.pipeline import Tuned, TunedModel
    from luthier.pipeline import tune_from as tune
    from luthier.recipe import Recipe, read_recipe

_HOMES = {
    "Recipe": ("luthier.recipe", "Recipe"),
    "Tuned": ("luthier.pipeline", "Tuned"),
    "TunedModel": ("luthier.pipeline", "TunedModel"),
    "read_recipe": ("luthier.recipe", "read_recipe"),
    "tune": ("luthier.pipeline", "tune_from"),
}

__all__ = ["LuthierError", "Recipe", "Tuned", "TunedModel", "read_recipe", "tune"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
