"""A job's request becomes an order: the recipe its process goes by.

What the request may say about the recipe is a closed list: nothing that names a path, a URL, a
piece of code or another model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from luthier.errors import ConfigError
from luthier.jobs.process import Order
from luthier.jobs.tables import JobRow
from luthier.recipe import recipe_from

METHODS = {"supervised": "sft", "dpo": "dpo"}
"""OpenAI's names of methods -> ours."""

TASKS = {"classification": "classify", "embedding": "embed"}
"""What a job may be besides: `task` in the request."""

HYPERPARAMETERS = {
    "n_epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "beta": "method.beta",
    "learning_rate": "training.learning_rate",
    "lora_rank": "tuning.rank",
    "lora_alpha": "tuning.alpha",
    "lora_dropout": "tuning.dropout",
    "target_modules": "tuning.targets",
    "max_seq_length": "training.max_length",
    "warmup_ratio": "training.warmup_ratio",
    "weight_decay": "training.weight_decay",
}
"""Names of hyperparameters -> fields of a recipe; the first three are the protocol's."""

MULTIPLIER = "learning_rate_multiplier"

ALLOWED = {
    "method": ("kind", "train_on", "beta", "margin", "odds_weight", "good_weight", "labels", "head",
               "balance", "stages", "scale", "direction", "hard_negatives", "dimensions",
               "query_prompt", "passage_prompt"),
    "tuning": ("kind", "rank", "alpha", "dropout", "targets", "variants", "quantize", "count"),
    "training": ("epochs", "max_steps", "batch_size", "micro_batch_tokens", "max_length",
                 "learning_rate", "activations", "optimizer", "schedule", "warmup_ratio",
                 "weight_decay", "max_grad_norm", "evaluate_every", "patience",
                 "checkpoint_every", "order"),
    "data": ("format", "validation_share", "test_share", "limit", "max_dropped_share"),
    "evaluation": ("metrics", "primary", "least_gain", "tolerance", "shots", "nearest", "limit",
                   "max_new_tokens", "instructions", "general", "general_margin", "confidence",
                   "resamples", "group"),
}  # fmt: skip
"""What a request's `recipe` may set."""

MADE = "made:"
"""Before the place in the storage of a run whose model a job goes on from."""

NO_PATHS = {"evaluation.general": ("built-in", "none")}
"""Values that a request may give where a recipe of one's own may name a file."""


def order_of(
    job: JobRow, files: Mapping[str, Path], workspace: Path, made: Path | None = None
) -> Order:
    """The order of a job, with its files on this machine, and the run that made its start.

    Raises ConfigError.
    """
    given = job.hyperparameters
    content: dict[str, dict[str, Any]] = {
        "method": {"kind": job.settings.get("method") or METHODS[job.method["type"]]},
        "tuning": {}, "training": {"seed": job.seed}, "data": {}, "evaluation": {},
    }  # fmt: skip
    for section, values in job.settings.get("recipe", {}).items():
        content[section] |= values
    for name, value in given.items():
        if name in HYPERPARAMETERS and value not in ("auto", None):
            section, _, field = HYPERPARAMETERS[name].partition(".")
            content[section][field] = value
    if job.source.startswith(MADE) and content["tuning"].get("kind", "lora") == "lora":
        # One adapter goes on, so that all models over a base go on sharing its weights.
        content["tuning"]["earlier"] = "continue"
    content["data"] |= {name: str(path) for name, path in files.items()}
    recipe = {
        "name": job.id,
        "model": {"source": job.source if made is None else f"run:{made}"},
        "runtime": {"workspace": str(workspace)},
        **{section: values for section, values in content.items() if values},
    }
    recipe_from(recipe)
    multiplier = given.get(MULTIPLIER, "auto")
    return Order(recipe, None if multiplier in ("auto", None) else float(multiplier))


def without_paths(text: str, order: Order) -> str:
    """A message for clients: files by the names of their contents, not by where we keep them."""
    paths = [path for name, path in order.recipe["data"].items() if name in ("train", "validation")]
    for place in (*paths, order.recipe["runtime"]["workspace"]):
        path = Path(place)
        text = text.replace(str(path), path.stem)
    return text


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where a request's `recipe` sets what only the server's owner may."""
    for section, values in settings.items():
        if section not in ALLOWED:
            raise ConfigError(
                f"{section} cannot be set by a request",
                where="recipe",
                accepted=", ".join(ALLOWED),
            )
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"is {type(values).__name__}", where=f"recipe.{section}", accepted="an object"
            )
        for name, value in values.items():
            if name not in ALLOWED[section]:
                raise ConfigError(
                    f"{name} cannot be set by a request",
                    where=f"recipe.{section}",
                    accepted=", ".join(ALLOWED[section]),
                )
            words = NO_PATHS.get(f"{section}.{name}")
            if words and value not in words:
                raise ConfigError(
                    "is no word that a request may say",
                    where=f"recipe.{section}.{name}",
                    accepted=" or ".join(words),
                )
