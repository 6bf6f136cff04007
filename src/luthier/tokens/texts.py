"""Texts become ids as encoders were made to read them: with the tokenizer's own special tokens.

No chat template and no mask: a text is read as a whole. A text that is longer than the limit is
cut, its beginning kept, and the ledger lists it; of two texts the longer one is cut first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from luthier.data import Example, Labelled, LabelSet, Pair, Query, Split, as_number
from luthier.errors import DataError
from luthier.tokens.ledger import Ledger
from luthier.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text, or two read together, as ids."""

    input_ids: list[int]
    second: int = 0
    """First token of the second text; 0 where there is one text."""

    @property
    def num_tokens(self) -> int:
        """Tokens with special ones."""
        return len(self.input_ids)


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """An example as the texts that a model reads, each by itself, and what is known of them."""

    example_id: str
    texts: tuple[EncodedText, ...]
    classes: tuple[int, ...] = ()
    """Numbers of its labels."""
    value: float | None = None
    """The number it is labelled with, or how alike two texts are."""

    @property
    def num_tokens(self) -> int:
        """Tokens computed for it."""
        return sum(text.num_tokens for text in self.texts)

    @property
    def num_supervised(self) -> int:
        """What is learnt: the example, once."""
        return 1


@dataclass(frozen=True, slots=True)
class Cut:
    """A text that was too long: whose, where it stands, and its length in tokens."""

    example_id: str
    place: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class TextSplit:
    """The examples of a split with their ids."""

    examples: tuple[Example, ...]
    encoded: tuple[EncodedTexts, ...]
    ledger: Ledger
    cut: tuple[Cut, ...] = ()

    def labelled(self, labels: LabelSet) -> "TextSplit":
        """The same with the numbers of the labels, or with the number that each row says.

        Rows of labels that the set does not have are left out: they cannot be learnt from.
        """
        place = {name: i for i, name in enumerate(labels.names)}
        kept = []
        for example, encoded in zip(self.examples, self.encoded, strict=True):
            assert isinstance(example, Labelled), "only labelled rows have labels"
            classes = tuple(place[label] for label in example.labels if label in place)
            if labels.kind == "number":
                encoded = replace(encoded, value=_number_of(example))
            elif labels.kind == "multi" or classes:
                encoded = replace(encoded, classes=classes)
            else:
                continue
            kept.append((example, encoded))
        return replace(
            self,
            examples=tuple(example for example, _ in kept),
            encoded=tuple(encoded for _, encoded in kept),
        )


def _number_of(example: Labelled) -> float:
    value = as_number(example.labels[0]) if len(example.labels) == 1 else None
    if value is None:
        raise DataError(
            f"has the label {', '.join(example.labels)!r}",
            where=str(example.place),
            accepted="a number, as training rows have",
        )
    return value


def read_texts(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, str | None]], max_length: int
) -> list[tuple[EncodedText, int]]:
    """Ids of texts, each by itself or with another, and how many there were before it was cut."""
    asked = [text if second is None else (text, second) for text, second in texts]
    return [_cut(encoding, max_length) for encoding in tokenizer.backend.encode_batch(asked)]


def _cut(encoding: Any, max_length: int) -> tuple[EncodedText, int]:
    ids: list[int] = encoding.ids
    own: tuple[list[int], list[int]] = ([], [])
    if encoding.n_sequences == 1 and len(ids) <= max_length:
        return EncodedText(ids), len(ids)
    for i, number in enumerate(encoding.sequence_ids):
        if number is not None:
            own[number].append(i)
    start = own[1][0] if own[1] else len(ids)
    surplus: set[int] = set()
    while len(ids) - len(surplus) > max_length and any(own):
        surplus.add(max(own, key=len).pop())
    kept = [x for i, x in enumerate(ids) if i not in surplus]
    second = start - sum(i < start for i in surplus) if encoding.n_sequences > 1 else 0
    return EncodedText(kept, second), len(ids)


def encode_texts(
    tokenizer: Tokenizer,
    split: Split,
    examples: Sequence[Example],
    *,
    prompts: tuple[str, str],
    max_length: int,
) -> TextSplit:
    """Every example of a split as texts; `prompts` stand before what is asked and what is found."""
    asked = [_read_by_itself(example, prompts) for example in examples]
    read = iter(read_texts(tokenizer, [text for texts in asked for text in texts], max_length))
    encoded: list[EncodedTexts] = []
    cut: list[Cut] = []
    longest = 0
    for example, texts in zip(examples, asked, strict=True):
        own = [next(read) for _ in texts]
        longest = max(longest, *(length for _, length in own))
        cut += [
            Cut(example.id, str(example.place), length) for _, length in own if length > max_length
        ]
        value = example.score if isinstance(example, Pair) else None
        encoded.append(EncodedTexts(example.id, tuple(text for text, _ in own), value=value))
    ledger = Ledger(
        split,
        num_rows=len(examples),
        num_kept=len(encoded),
        dropped=(),
        num_tokens=sum(e.num_tokens for e in encoded),
        num_supervised=len(encoded),
        longest=longest,
    )
    return TextSplit(tuple(examples), tuple(encoded), ledger, tuple(cut))


def _read_by_itself(example: Example, prompts: tuple[str, str]) -> list[tuple[str, str | None]]:
    """The texts of an example that a model reads, each with the text it is read together with."""
    asked, found = prompts
    match example:
        case Labelled():
            return [(asked + example.text, example.second)]
        case Query():
            return [(asked + example.text, None)]
        case Pair():
            return [
                (asked + example.anchor, None),
                *((found + text, None) for text in example.texts[1:]),
            ]
        case _:
            raise TypeError(f"{example.id} is no text to be read as a whole")
