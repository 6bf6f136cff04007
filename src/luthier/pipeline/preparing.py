"""Everything before the first computation: model files, rows, ids, and every "auto" decided.

Loads no weights. What comes out is all that checking, previewing, planning and tuning need.
"""

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from luthier.data import (
    Chat,
    Collection,
    Dataset,
    Example,
    Finding,
    Labelled,
    LabelSet,
    Pair,
    Preference,
    Rated,
    Split,
    Text,
    as_conversations,
    collection_of,
    limit_by_hash,
    read_collection,
    read_dataset,
    refuse_errors,
    told_labels,
    with_test,
)
from luthier.errors import DataError
from luthier.evaluation import Item, general_set
from luthier.models import ModelFolder, count_weights, probe_devices
from luthier.pipeline.datasets import NamedRows, Remembered, exactly, named_rows
from luthier.pipeline.encoding import (
    WIDTHS,
    AnySplit,
    Encoding,
    ReadEncoding,
    WrittenEncoding,
    label_set_of,
    text_limit,
)
from luthier.pipeline.judging import scorers_of
from luthier.pipeline.questions import encode_questions
from luthier.pipeline.starting import cache_folder, resolve_start
from luthier.recipe import TEXT_METHODS, Facts, ReadRecipe, Recipe, Resolved, resolve
from luthier.runs import num_cores
from luthier.tokens import Cut, TextSplit, Tokenizer, check_ledger

METHODS: dict[type[Example], tuple[str, ...]] = {
    Chat: ("sft",),
    Preference: ("dpo", "ipo", "simpo", "orpo", "kto"),
    Rated: ("kto",),
    Text: ("pretrain",),
    Labelled: ("classify", "embed", "sft"),
    Pair: ("embed",),
}
"""Kind of examples -> methods that learn from them."""
KINDS = {
    Chat: "conversations",
    Preference: "preferences",
    Rated: "rated answers",
    Text: "raw texts",
    Labelled: "labelled texts",
    Pair: "pairs of texts",
}
WRITES_LABELS = (
    "rows are texts with labels, which the model learns to write; method: classify learns labels "
    "with a head of their own, faster and with smaller models"
)
DEPTHS = ("num_hidden_layers", "n_layer", "n_layers")
"""Names of its number of blocks."""
NO_LIMIT = 10**9
"""Length limit while the recipe's own is not decided yet."""


@dataclass(frozen=True)
class Prepared:
    """A run that could start: nothing in it is undecided."""

    source: ModelFolder
    encoding: Encoding
    dataset: Dataset
    findings: tuple[Finding, ...]
    """Warnings about rows; errors have been raised."""
    train: AnySplit
    validation: AnySplit
    test: tuple[Example, ...]
    """Held-out examples, as many as evaluation.limit allows."""
    facts: Facts
    resolved: Resolved
    text: str
    """The recipe as given."""
    labels: LabelSet | None = None
    """Of labelled rows."""
    collection: Collection | None = None
    """What the held-out queries search."""
    items: Mapping[str, Item] = field(default_factory=dict)
    """Fields of each held-out row by its place, for graders."""
    told: LabelSet | None = None
    """The labels that a model is told which learns to write them."""

    @property
    def recipe(self) -> Recipe:
        """The recipe without "auto"."""
        return self.resolved.recipe

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.encoding.tokenizer

    @cached_property
    def cut(self) -> dict[Split, tuple[Cut, ...]]:
        """Texts of each split that are longer than what is read of them."""
        if not isinstance(self.encoding, ReadEncoding):
            return {}
        limit = text_limit(self.recipe, self.encoding.limit)
        tested = self.encoding.encode("test", self.test, limit)
        splits: dict[Split, AnySplit] = {
            "train": self.train, "validation": self.validation, "test": tested,
        }  # fmt: skip
        return {name: split.cut for name, split in splits.items() if isinstance(split, TextSplit)}


@contextmanager
def _rows_stay() -> Iterator[None]:
    """Within, nobody looks for dead cycles among the rows, where none is: it took a third."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_rows_stay()
def prepare(
    read: ReadRecipe,
    observe: Callable[[str], None] = lambda note: None,
    *,
    judged_on: Path | None = None,
) -> Prepared:
    """Read data and model files, prove the masks, decide every "auto".

    `judged_on` is a file of rows that take the place of the held-out ones.
    Raises DataError listing everything wrong with the rows, TemplateError, ModelError.
    """
    recipe = exactly(read.recipe)
    plain = named_rows(recipe)
    source_of_rows = Remembered(plain) if recipe.evaluation.graders else plain
    reading = read_dataset(recipe.data, source_of_rows)
    if judged_on is not None:
        reading = with_test(reading, judged_on, recipe.data.format, source_of_rows)
    findings = list(reading.findings)
    refuse_errors(findings)
    told = told_labels(reading.dataset) if recipe.method.kind == "sft" else None
    dataset = for_method(reading.dataset, recipe, told)
    if _kind(reading.dataset) is Labelled and _kind(dataset) is Chat:
        observe(WRITES_LABELS)
    collection = _collection(dataset, recipe, findings)
    held_out = measurable(collection.queries if collection else dataset.test)
    _check_splits(replace(dataset, test=held_out))
    source = resolve_start(recipe, observe)
    encoding = open_encoding(source.path, recipe)
    splits = _encode(encoding, dataset, recipe, NO_LIMIT)
    test = tuple(limit_by_hash(held_out, recipe.evaluation.limit))
    facts = _facts(splits, test, source, encoding)
    facts = replace(facts, cache=str(cache_folder(recipe)))
    resolved = resolve(recipe, read.origins, facts)
    labels = label_set_of(dataset.train, resolved.recipe)
    scorers_of(resolved.recipe, test, labels, collection)  # some may not fit the rows
    if recipe.method.kind not in TEXT_METHODS:
        _check_questions(recipe, encoding)
    max_length = resolved.recipe.training.max_length
    assert max_length != "auto", "resolved"
    if any(split.ledger.longest > max_length for split in splits):
        splits = _encode(encoding, dataset, recipe, max_length)
    check_ledger(splits[0].ledger, recipe.data.max_dropped_share)
    return Prepared(
        source,
        encoding,
        dataset,
        tuple(findings),
        *splits,
        test,
        facts,
        resolved,
        read.text,
        labels,
        collection,
        _items(source_of_rows, test),
        told,
    )


def _check_questions(recipe: Recipe, encoding: Encoding) -> None:
    """A file of general questions of one's own may hold what is none, or cannot be put."""
    if isinstance(recipe.evaluation.general, Path):
        encode_questions(encoding.tokenizer, general_set(recipe.evaluation))


def _items(source: NamedRows | Remembered, test: Sequence[Example]) -> dict[str, Item]:
    """Fields of the held-out rows, where they were remembered."""
    known = source.items if isinstance(source, Remembered) else {}
    places = (str(example.place) for example in test)
    return {place: known[place] for place in places if place in known}


def open_encoding(folder: Path, recipe: Recipe) -> Encoding:
    """The way from examples to ids that a recipe's method takes."""
    if recipe.method.kind in TEXT_METHODS:
        return ReadEncoding.open(folder, recipe)
    return WrittenEncoding.open(folder, recipe)


def _collection(dataset: Dataset, recipe: Recipe, findings: list[Finding]) -> Collection | None:
    """What held-out queries search, where a search is learnt."""
    if recipe.method.kind != "embed" or not dataset.train:
        return None
    first, data = dataset.train[0], recipe.data
    if data.corpus is not None and data.queries is not None and data.judgements is not None:
        found = read_collection(data.corpus, data.queries, data.judgements, findings.append)
        refuse_errors(findings)
        return found
    is_searched = isinstance(first, Pair) and first.score is None
    return collection_of(dataset.test) if is_searched else None


def for_method(dataset: Dataset, recipe: Recipe, told: LabelSet | None = None) -> Dataset:
    """The dataset as the method needs it; a model that writes labels is told these.

    Raises DataError when its rows are of another kind.
    """
    kind = _kind(dataset)
    methods, is_kto = METHODS[kind], recipe.method.kind == "kto"
    if is_kto and kind is Preference:
        dataset = Dataset(
            tuple(_rated(dataset.train)),
            tuple(_rated(dataset.validation)),
            tuple(_rated(dataset.test)),
            dataset.files,
        )
        kind, methods = Rated, ("kto",)
    if recipe.method.kind == "sft" and kind is Labelled:
        return as_conversations(dataset, told)
    if recipe.method.kind not in methods:
        raise DataError(
            f"holds {KINDS[kind]}, which {recipe.method.kind} cannot learn from",
            where=", ".join(dataset.files),
            advice=f"set method.kind to {' or '.join(methods)}, or name other rows"
            + ("; with data.format: rated, labels 0 and 1 are marks" if is_kto else "")
            + ("; with data.format: text, a label is left aside" * (kind is Labelled)),
        )
    return dataset


def _kind(dataset: Dataset) -> type[Example]:
    return type(dataset.train[0]) if dataset.train else Chat


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
    encoding: Encoding, dataset: Dataset, recipe: Recipe, max_length: int
) -> tuple[AnySplit, AnySplit]:
    """Training and validation rows as ids, with the numbers of their labels."""
    learnt: tuple[Split, Split] = ("train", "validation")
    labels = label_set_of(dataset.train, recipe)
    found = []
    for split in learnt:
        encoded = encoding.encode(split, getattr(dataset, split), max_length)
        if labels is not None and isinstance(encoded, TextSplit):
            encoded = encoded.labelled(labels)
        found.append(encoded)
    return found[0], found[1]


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
    splits: tuple[AnySplit, AnySplit],
    test: tuple[Example, ...],
    source: ModelFolder,
    encoding: Encoding,
) -> Facts:
    train, validation = splits
    devices = probe_devices()
    config, sizes = _text_config(source.path), count_weights(source.path)
    return Facts(
        num_train=len(train.encoded),
        num_validation=len(validation.encoded),
        train_tokens=train.ledger.num_tokens,
        validation_tokens=validation.ledger.num_tokens,
        longest_row=max(train.ledger.longest, validation.ledger.longest),
        hidden_size=int(next((config[name] for name in WIDTHS if config.get(name)), 1)),
        num_layers=int(next((config[name] for name in DEPTHS if config.get(name)), 0)),
        model_type=str(config.get("model_type", "")),
        has_cuda=devices.has_cuda,
        has_fast_bfloat16=devices.has_fast_bfloat16,
        num_cores=max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        cache="",
        supervised_tokens=train.ledger.num_supervised,
        num_good=sum(not isinstance(e, Rated) or e.is_good for e in train.examples),
        adapter_size=sizes.adapter,
        narrowest_layer=sizes.narrowest,
        model_size=sizes.model,
        can_compile=devices.can_compile,
        **encoding.facts(train, test),
    )


def _text_config(folder: Path) -> dict[str, Any]:
    """The language part of config.json; multimodal models nest it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    nested = config.get("text_config")
    return {**config, **nested} if isinstance(nested, dict) else dict(config)
