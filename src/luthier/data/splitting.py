"""Examples become splits, by a hash of their prompt.

Equal prompts (up to case and white space) always fall into the same split, and an example's split
does not change when others are added. No randomness, no order.
"""

import hashlib
from collections.abc import Sequence

from luthier.data.examples import Example, Split, Text

SPLITS: tuple[Split, ...] = ("test", "validation", "train")


def prompt_key(example: Example) -> str:
    """What makes two prompts equal: roles and words before the last answer, white space aside.

    A text has no prompt; its own words stand for it.
    """
    if isinstance(example, Text):
        return _folded(example.text)
    return "\x00".join(f"{message.role}:{_folded(message.content)}" for message in example.prompt)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _position(key: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but the key."""
    digest = hashlib.sha256(f"{purpose}\x00{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_hash(
    examples: Sequence[Example], validation_share: float, test_share: float
) -> dict[Split, list[Example]]:
    """Examples by split. In a small file, a wanted split that stays empty gets a prompt of another.

    Then, and only then, may adding rows move an example: with three distinct prompts or more, every
    wanted split holds at least one.
    """
    keys = sorted(
        {prompt_key(example) for example in examples}, key=lambda key: _position(key, "split")
    )
    shares: dict[Split, float] = {"test": test_share, "validation": validation_share, "train": 1.0}
    by_key: dict[str, Split] = {}
    for key in keys:
        position = _position(key, "split")
        is_test, is_held = position < test_share, position < test_share + validation_share
        by_key[key] = "test" if is_test else "validation" if is_held else "train"
    if len(keys) >= 3:
        for split, share in shares.items():
            if share > 0 and split not in by_key.values():
                given = list(by_key.values())
                largest = max(SPLITS, key=given.count)
                by_key[next(key for key in keys if by_key[key] == largest)] = split
    splits: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    for example in examples:
        splits[by_key[prompt_key(example)]].append(example)
    return splits


def limit_by_hash(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """At most `limit` examples in their order, always the same ones."""
    if limit is None or len(examples) <= limit:
        return list(examples)
    ranked = sorted(
        range(len(examples)), key=lambda i: (_position(prompt_key(examples[i]), "limit"), i)
    )
    return [examples[i] for i in sorted(ranked[:limit])]
