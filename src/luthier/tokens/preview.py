"""A row as the model will see it: its tokens, and what of it is learnt."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from luthier.data import Example, Labelled, Pair
from luthier.tokens.encoded import (
    IGNORED,
    Encoded,
    EncodedExample,
    EncodedPair,
    EncodedRated,
)
from luthier.tokens.texts import EncodedTexts
from luthier.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Stretch:
    """Text of neighbouring tokens that are all learnt, or all not."""

    text: str
    is_learnt: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A sequence, or the texts of a row, to be looked at."""

    heading: str
    stretches: tuple[Stretch, ...]


def shown_example(tokenizer: Tokenizer, example: EncodedExample) -> list[Shown]:
    """What an example of a model that writes is learnt from, sequence by sequence."""
    return [
        Shown(
            f"{encoded.example_id}: {len(encoded.input_ids)} tokens, "
            f"{encoded.num_supervised} learnt",
            tuple(stretches(tokenizer, encoded)),
        )
        for encoded in shown_sequences(example)
    ]


def shown_texts(tokenizer: Tokenizer, example: Example, encoded: EncodedTexts) -> Shown:
    """The texts of a row, each on a line, and what is learnt about them."""
    texts = [tokenizer.decode(text.input_ids, keep_special=True) for text in encoded.texts]
    found = [Stretch("\n".join(texts) + "\n", is_learnt=False), *_learnt(example)]
    return Shown(f"{encoded.example_id}: {encoded.num_tokens} tokens", tuple(found))


def _learnt(example: Example) -> list[Stretch]:
    """The labels of a row; nothing of texts that belong together."""
    if isinstance(example, Labelled):
        return [Stretch(example.target.content or "no label", is_learnt=True)]
    if isinstance(example, Pair) and example.score is not None:
        return [Stretch(example.target.content, is_learnt=True)]
    return []


def stretches(tokenizer: Tokenizer, encoded: Encoded) -> Iterator[Stretch]:
    """The rendered text of a chat, cut where the mask changes."""
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    for is_learnt, group in groupby(pairs, key=lambda pair: pair[1] != IGNORED):
        ids = [token for token, _ in group]
        yield Stretch(tokenizer.decode(ids, keep_special=True), is_learnt)


def shown_sequences(example: EncodedExample) -> list[Encoded]:
    """What an example is learnt from, each with a name that says its part."""
    if isinstance(example, EncodedPair):
        named = {"chosen": example.chosen, "rejected": example.rejected}
    elif isinstance(example, EncodedRated):
        named = {"good" if example.is_good else "bad": example.answer}
    else:
        return list(example.sequences)
    return [
        replace(sequence, example_id=f"{example.example_id}, {part}")
        for part, sequence in named.items()
    ]


def preview_page(rows: Sequence[Shown]) -> str:
    """A page that shows rows with the learnt stretches marked. Needs nothing but a browser."""
    blocks = []
    for row in rows:
        body = "".join(
            f"<mark>{html.escape(s.text)}</mark>" if s.is_learnt else html.escape(s.text)
            for s in row.stretches
        )
        blocks.append(f"<h2>{html.escape(row.heading)}</h2><pre>{body}</pre>")
    return PAGE.replace("BLOCKS", "\n".join(blocks))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What is learnt</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 2rem 0 .4rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem; border: 1px solid #8886 }
mark { background: light-dark(#bfe8c8, #1f5c33); color: inherit }
</style></head><body><h1>What is learnt</h1>
<p>Marked text is learnt; the rest is what the model is given.</p>
BLOCKS
</body></html>
"""
