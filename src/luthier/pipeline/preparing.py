"""Everything before the first computation: model files, rows, masks, and every "auto" decided.

Loads no weights. What comes out is all that checking, previewing, planning and tuning need.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.data import Chat, Dataset, Finding, Split, limit_by_hash, read_dataset, refuse_errors
from luthier.errors import DataError
from luthier.evaluation import suggest_metrics
from luthier.models import ModelFolder, default_cache, probe_devices, resolve_source
from luthier.recipe import Facts, ReadRecipe, Recipe, Resolved, resolve
from luthier.runs import num_cores
from luthier.tokens import Encoded, EncodedSplit, Tokenizer, check_ledger, encode_split

NO_LIMIT = 10**9
"""Length limit while the recipe's own is not decided yet."""


@dataclass(frozen=True)
class Prepared:
    """A run that could start: nothing in it is undecided."""

    source: ModelFolder
    tokenizer: Tokenizer
    dataset: Dataset
    findings: tuple[Finding, ...]
    """Warnings about rows; errors have been raised."""
    train: EncodedSplit
    validation: EncodedSplit
    test: tuple[Chat, ...]
    """Held-out chats, as many as evaluation.limit allows."""
    facts: Facts
    resolved: Resolved
    text: str
    """The recipe as given."""

    @property
    def recipe(self) -> Recipe:
        """The recipe without "auto"."""
        return self.resolved.recipe


def prepare(read: ReadRecipe, observe: Callable[[str], None] = lambda note: None) -> Prepared:
    """Read data and model files, prove the masks, decide every "auto".

    Raises DataError listing everything wrong with the rows, TemplateError, ModelError.
    """
    recipe = read.recipe
    reading = read_dataset(recipe.data)
    refuse_errors(reading.findings)
    cache = default_cache() if recipe.runtime.cache == "auto" else recipe.runtime.cache
    source = resolve_source(recipe.model, cache, observe)
    tokenizer = Tokenizer.load(source.path, recipe.model.chat_template)
    dataset = reading.dataset
    _check_splits(dataset)
    learnt: tuple[Split, ...] = ("train", "validation")
    whole = {
        split: _encode(tokenizer, split, getattr(dataset, split), recipe, NO_LIMIT)
        for split in learnt
    }
    test = tuple(limit_by_hash(dataset.test, recipe.evaluation.limit))
    facts = _facts(whole["train"], whole["validation"], test, source, tokenizer, cache)
    resolved = resolve(recipe, read.origins, facts)
    max_length = resolved.recipe.training.max_length
    assert max_length != "auto", "resolved"
    kept = {
        split: _encode(tokenizer, split, getattr(dataset, split), recipe, max_length)
        if encoded.ledger.longest > max_length
        else encoded
        for split, encoded in whole.items()
    }
    check_ledger(kept["train"].ledger, recipe.data.max_dropped_share)
    return Prepared(
        source,
        tokenizer,
        dataset,
        tuple(reading.findings),
        kept["train"],
        kept["validation"],
        test,
        facts,
        resolved,
        read.text,
    )


def _encode(
    tokenizer: Tokenizer, split: Split, chats: tuple[Chat, ...], recipe: Recipe, max_length: int
) -> EncodedSplit:
    return encode_split(
        tokenizer, split, chats, train_on=recipe.method.train_on, max_length=max_length
    )


def _check_splits(dataset: Dataset) -> None:
    for split, advice in (
        ("train", "add rows"),
        ("test", "add rows, or name a file of held-out rows in data.test"),
    ):
        if not getattr(dataset, split):
            raise DataError(
                f"no row is left for {split}",
                where=", ".join(dataset.files),
                accepted="at least one row for training and one for the test",
                advice=advice,
            )


def _facts(
    train: EncodedSplit,
    validation: EncodedSplit,
    test: tuple[Chat, ...],
    source: ModelFolder,
    tokenizer: Tokenizer,
    cache: Path,
) -> Facts:
    suggestion = suggest_metrics([chat.target.content for chat in test])
    devices = probe_devices()
    config = _text_config(source.path)
    return Facts(
        num_train=train.ledger.num_kept,
        num_validation=validation.ledger.num_kept,
        train_tokens=train.ledger.num_tokens,
        validation_tokens=validation.ledger.num_tokens,
        longest_row=max(train.ledger.longest, validation.ledger.longest),
        longest_answer=max((_answer_length(e) for e in train.encoded), default=0),
        hidden_size=int(config.get("hidden_size") or config.get("n_embd") or 1),
        model_type=str(config.get("model_type", "")),
        context_length=tokenizer.context_length,
        suggested_metrics=suggestion.metrics,
        suggestion_reason=suggestion.reason,
        has_cuda=devices.has_cuda,
        has_bfloat16=devices.has_bfloat16,
        num_cores=num_cores(),
        cache=str(cache),
    )


def _text_config(folder: Path) -> dict[str, Any]:
    """The language part of config.json; multimodal models nest it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else dict(config)


def _answer_length(encoded: Encoded) -> int:
    start, end = encoded.spans[-1] if encoded.spans else (0, 0)
    return end - start
