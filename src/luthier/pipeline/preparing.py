"""Everything before the first computation: model files, rows, masks, and every "auto" decided.

Loads no weights. What comes out is all that checking, previewing, planning and tuning need.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luthier.data import (
    Chat,
    Dataset,
    Example,
    Finding,
    Preference,
    Rated,
    Split,
    Text,
    limit_by_hash,
    read_dataset,
    refuse_errors,
)
from luthier.errors import DataError
from luthier.evaluation import build_scorers, suggest_metrics
from luthier.models import ModelFolder, count_weights, probe_devices
from luthier.pipeline.starting import cache_folder, resolve_start
from luthier.recipe import SFT, Facts, ReadRecipe, Recipe, Resolved, resolve
from luthier.runs import num_cores
from luthier.tokens import EncodedExample, EncodedSplit, Tokenizer, check_ledger, encode_split

METHODS: dict[type[Example], tuple[str, ...]] = {
    Chat: ("sft",),
    Preference: ("dpo", "ipo", "simpo", "orpo", "kto"),
    Rated: ("kto",),
    Text: ("pretrain",),
}
"""Kind of examples -> methods that learn from them."""
KINDS = {
    Chat: "conversations",
    Preference: "preferences",
    Rated: "rated answers",
    Text: "raw texts",
}
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
    test: tuple[Example, ...]
    """Held-out examples, as many as evaluation.limit allows."""
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
    dataset = for_method(reading.dataset, recipe)
    held_out = measurable(dataset.test)
    _check_splits(replace(dataset, test=held_out))
    source = resolve_start(recipe, observe)
    tokenizer = Tokenizer.load(source.path, recipe.model.chat_template)
    learnt: tuple[Split, ...] = ("train", "validation")
    whole = {
        split: _encode(tokenizer, split, getattr(dataset, split), recipe, NO_LIMIT)
        for split in learnt
    }
    test = tuple(limit_by_hash(held_out, recipe.evaluation.limit))
    facts = _facts(whole["train"], whole["validation"], test, source, tokenizer)
    facts = replace(facts, cache=str(cache_folder(recipe)))
    resolved = resolve(recipe, read.origins, facts)
    build_scorers(resolved.recipe.evaluation)  # a pattern may be none
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


def for_method(dataset: Dataset, recipe: Recipe) -> Dataset:
    """The dataset as the method needs it. Raises DataError when its rows are of another kind."""
    kind = type(dataset.train[0]) if dataset.train else Chat
    methods, is_kto = METHODS[kind], recipe.method.kind == "kto"
    if is_kto and kind is Preference:
        dataset = Dataset(
            tuple(_rated(dataset.train)),
            tuple(_rated(dataset.validation)),
            tuple(_rated(dataset.test)),
            dataset.files,
        )
        kind, methods = Rated, ("kto",)
    if recipe.method.kind not in methods:
        raise DataError(
            f"holds {KINDS[kind]}, which {recipe.method.kind} cannot learn from",
            where=", ".join(dataset.files),
            advice=f"set method.kind to {' or '.join(methods)}, or name other rows"
            + ("; with data.format: rated, labels 0 and 1 are marks" if is_kto else ""),
        )
    return dataset


def measurable(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """The examples whose answer is one to be measured against: none marked bad."""
    return tuple(e for e in examples if not isinstance(e, Rated) or e.is_good)


def _rated(examples: tuple[Example, ...]) -> Iterator[Example]:
    """Preferences as answers marked good and bad."""
    for example in examples:
        if isinstance(example, Preference):
            chosen, rejected = example.chats
            yield Rated(replace(chosen, id=f"{example.id}/chosen"), is_good=True)
            yield Rated(replace(rejected, id=f"{example.id}/rejected"), is_good=False)


def _encode(
    tokenizer: Tokenizer,
    split: Split,
    examples: tuple[Example, ...],
    recipe: Recipe,
    max_length: int,
) -> EncodedSplit:
    train_on = recipe.method.train_on if isinstance(recipe.method, SFT) else "last"
    return encode_split(tokenizer, split, examples, train_on=train_on, max_length=max_length)


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
    test: tuple[Example, ...],
    source: ModelFolder,
    tokenizer: Tokenizer,
) -> Facts:
    suggestion = suggest_metrics(test)
    devices = probe_devices()
    config, sizes = _text_config(source.path), count_weights(source.path)
    return Facts(
        num_train=len(train.encoded),
        num_validation=len(validation.encoded),
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
        num_cores=max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        cache="",
        supervised_tokens=train.ledger.num_supervised,
        num_good=sum(not isinstance(e, Rated) or e.is_good for e in train.examples),
        adapter_size=sizes.adapter,
        narrowest_layer=sizes.narrowest,
        model_size=sizes.model,
        can_compile=devices.can_compile,
    )


def _text_config(folder: Path) -> dict[str, Any]:
    """The language part of config.json; multimodal models nest it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else dict(config)


def _answer_length(encoded: EncodedExample) -> int:
    start, end = encoded.sequences[0].spans[-1]
    return end - start
