"""The one schema behind every door, how it is read, and how "auto" is decided."""

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
    "Recipe",
    "Resolved",
    "Runtime",
    "Section",
    "Training",
    "num_steps",
    "resolve",
    "settled",
]
