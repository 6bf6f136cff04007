"""A chat as the model will see it: its tokens, and which of them it learns."""

import html
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from luthier.tokens.encoded import (
    IGNORED,
    Encoded,
    EncodedExample,
    EncodedPair,
    EncodedRated,
)
from luthier.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Stretch:
    """Text of neighbouring tokens that are all learnt, or all not."""

    text: str
    is_learnt: bool


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


def preview_page(tokenizer: Tokenizer, chats: list[Encoded]) -> str:
    """A page that shows chats with the learnt stretches marked. Needs nothing but a browser."""
    blocks = []
    for encoded in chats:
        body = "".join(
            f"<mark>{html.escape(s.text)}</mark>" if s.is_learnt else html.escape(s.text)
            for s in stretches(tokenizer, encoded)
        )
        blocks.append(
            f"<h2>{html.escape(encoded.example_id)}</h2><p>{len(encoded.input_ids)} tokens, "
            f"{encoded.num_supervised} learnt</p><pre>{body}</pre>"
        )
    return PAGE.replace("BLOCKS", "\n".join(blocks))


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What is learnt</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { font-size: 1rem; margin: 2rem 0 0 }
p { margin: 0 0 .4rem; opacity: .7 }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .8rem; border: 1px solid #8886 }
mark { background: light-dark(#bfe8c8, #1f5c33); color: inherit }
</style></head><body><h1>What is learnt</h1>
<p>Marked text carries loss; the rest is what the model is given.</p>
BLOCKS
</body></html>
"""
