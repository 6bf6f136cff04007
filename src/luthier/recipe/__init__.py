"""The one schema behind every door, how it is read, and how "auto" is decided."""

from luthier.recipe.reading import (
    ReadRecipe,
    field_names,
    flatten,
    read_recipe,
    recipe_from,
    recipe_hash,
    to_yaml,
)
from luthier.recipe.rules import RULES, Facts, Resolved, num_steps, resolve
from luthier.recipe.schema import (
    SFT,
    Auto,
    Data,
    Evaluation,
    LoRA,
    MetricName,
    Model,
    Recipe,
    Runtime,
    Section,
    Training,
    settled,
)

__all__ = [
    "RULES",
    "SFT",
    "Auto",
    "Data",
    "Evaluation",
    "Facts",
    "LoRA",
    "MetricName",
    "Model",
    "ReadRecipe",
    "Recipe",
    "Resolved",
    "Runtime",
    "Section",
    "Training",
    "field_names",
    "flatten",
    "num_steps",
    "read_recipe",
    "recipe_from",
    "recipe_hash",
    "resolve",
    "settled",
    "to_yaml",
]
