"""How a method's examples become ids: of what a model is to write, or of texts read whole."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from luthier.data import Example, Labelled, LabelSet, Split, label_kind, read_label_set
from luthier.errors import ConfigError
from luthier.evaluation import suggest_for_texts, suggest_metrics
from luthier.models import Pooling, read_pooling
from luthier.pipeline.starting import cache_folder
from luthier.recipe import SFT, Classify, Embed, Recipe, settled
from luthier.tokens import (
    EncodedExample,
    EncodedSplit,
    KeptIds,
    TextSplit,
    Tokenizer,
    encode_split,
    encode_texts,
)

AnySplit = EncodedSplit | TextSplit
LONGEST = 512
"""Tokens of a text to be searched that are read, where the model could read more."""


class Encoding(Protocol):
    """One way from examples to ids."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        ...

    def encode(self, split: Split, examples: Sequence[Example], max_length: int) -> AnySplit:
        """The examples of a split as ids."""
        ...

    def facts(self, train: AnySplit, test: tuple[Example, ...]) -> dict[str, Any]:
        """What the rules of a recipe need to know, of what only this way knows."""
        ...


WIDTHS = ("hidden_size", "n_embd", "dim")
"""Names of a model's width in config.json."""


@dataclass(frozen=True)
class WrittenEncoding:
    """Examples of what a model is to write."""

    tokenizer: Tokenizer
    train_on: str
    kept_ids: KeptIds | None = None
    """Ids of rows that were encoded before."""

    @classmethod
    def open(cls, folder: Path, recipe: Recipe) -> "WrittenEncoding":
        """Read the tokenizer and chat template of a model folder."""
        train_on = recipe.method.train_on if isinstance(recipe.method, SFT) else "last"
        kept_ids = KeptIds(cache_folder(recipe) / "ids")
        return cls(Tokenizer.load(folder, recipe.model.chat_template), train_on, kept_ids)

    def encode(self, split: Split, examples: Sequence[Example], max_length: int) -> EncodedSplit:
        """Ids with a proven loss mask."""
        return encode_split(
            self.tokenizer,
            split,
            examples,
            train_on=self.train_on,
            max_length=max_length,
            kept_ids=self.kept_ids,
        )

    def facts(self, train: AnySplit, test: tuple[Example, ...]) -> dict[str, Any]:
        """Metrics that fit, lengths of answers, and the model's context."""
        assert isinstance(train, EncodedSplit), "encoded here"
        suggestion = suggest_metrics(test)
        return {
            "longest_answer": max((_answer_length(e) for e in train.encoded), default=0),
            "suggested_metrics": suggestion.metrics,
            "suggestion_reason": suggestion.reason,
            "context_length": self.tokenizer.context_length,
        }


def _answer_length(encoded: EncodedExample) -> int:
    start, end = encoded.sequences[0].spans[-1]
    return end - start


@dataclass(frozen=True)
class ReadEncoding:
    """Examples of texts that a model is to read."""

    tokenizer: Tokenizer
    pooling: Pooling
    recipe: Recipe
    prompts: tuple[str, str]
    """What stands before texts asked with, and texts found."""
    made_for: dict[str, Any] = field(default_factory=dict)
    """The model's config.json."""

    @classmethod
    def open(cls, folder: Path, recipe: Recipe) -> "ReadEncoding":
        """Read the tokenizer and pooling of a model folder."""
        tokenizer = Tokenizer.load(folder, writes=False)
        pooling = read_pooling(folder)
        prompts = ("", "")
        if isinstance(recipe.method, Embed):
            known = pooling.prompts
            prompts = (
                recipe.method.query_prompt or known.get("query", ""),
                recipe.method.passage_prompt or known.get("passage", known.get("document", "")),
            )
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        width = next((config[name] for name in WIDTHS if name in config), None)
        if isinstance(recipe.method, Embed) and width and not pooling.dense:
            _check_dimensions(recipe.method.dimensions, width)
        return cls(tokenizer, pooling, recipe, prompts, config)

    def encode(self, split: Split, examples: Sequence[Example], max_length: int) -> TextSplit:
        """Ids with the tokenizer's own special tokens; longer texts are cut."""
        return encode_texts(
            self.tokenizer, split, examples, prompts=self.prompts, max_length=max_length
        )

    @property
    def limit(self) -> int | None:
        """Tokens of a text that the model can read."""
        positions = self.made_for.get("max_position_embeddings")
        if positions and self.made_for.get("model_type") in ("roberta", "xlm-roberta", "camembert"):
            positions -= 2  # counted from after the padding id
        known = [x for x in (self.pooling.max_length, positions) if x]
        return min(known, default=None)

    def facts(self, train: AnySplit, test: tuple[Example, ...]) -> dict[str, Any]:
        """Labels and their counts, metrics that fit, and how much the model reads."""
        labels = label_set_of(train.examples, self.recipe)
        suggestion = suggest_for_texts(test, labels)
        return {
            "longest_answer": 0,
            "suggested_metrics": suggestion.metrics,
            "suggestion_reason": suggestion.reason,
            "context_length": self.limit,
            "label_kind": labels.kind if labels is not None else "",
            "label_counts": labels.counts if labels is not None else (),
            "has_vectors": self.pooling.is_sentence_folder,
        }


def _check_dimensions(dimensions: Sequence[int], width: int) -> None:
    if dimensions and max(dimensions) != width:
        raise ConfigError(
            f"is {list(dimensions)}",
            where="method.dimensions",
            accepted=f"lengths up to {width}, the model's own, which must be one of them",
        )


def text_limit(recipe: Recipe, limit: int | None) -> int:
    """Tokens of a text that are read, of a model that reads `limit` of them.

    A classifier answers from as much as it learnt from; texts to be searched are read whole.
    """
    learnt = settled(recipe.training.max_length)
    if isinstance(recipe.method, Classify):
        return learnt
    return max(learnt, min(limit or learnt, LONGEST))


def label_set_of(examples: Sequence[Example], recipe: Recipe) -> LabelSet | None:
    """The labels of the training rows, if they have any. Raises DataError."""
    labelled = [example for example in examples if isinstance(example, Labelled)]
    if not labelled:
        return None
    wanted = recipe.method.labels if isinstance(recipe.method, Classify) else "single"
    return read_label_set(labelled, label_kind(labelled) if wanted == "auto" else wanted)
