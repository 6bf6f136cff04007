"""The one schema behind every door, how it is read, and how "auto" is decided."""

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
    "SFT",
    "Auto",
    "Data",
    "Evaluation",
    "LoRA",
    "MetricName",
    "Model",
    "Recipe",
    "Runtime",
    "Section",
    "Training",
    "settled",
]
