"""Chats become splits, by a hash of their prompt.

Equal prompts (up to case and white space) always fall into the same split, and a chat's split does
not change when others are added. No randomness, no order.
"""

import hashlib
from collections.abc import Sequence

from luthier.data.examples import Chat, Split

SPLITS: tuple[Split, ...] = ("test", "validation", "train")


def prompt_key(chat: Chat) -> str:
    """What makes two prompts equal: roles and words before the last answer, white space aside."""
    return "\x00".join(
        f"{message.role}:{' '.join(message.content.casefold().split())}" for message in chat.prompt
    )


def _position(key: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but the key."""
    digest = hashlib.sha256(f"{purpose}\x00{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_by_hash(
    chats: Sequence[Chat], validation_share: float, test_share: float
) -> dict[Split, list[Chat]]:
    """Chats by split. In a small file, a wanted split that stays empty gets a prompt of another.

    Then, and only then, may adding rows move a chat: with three distinct prompts or more, every
    wanted split holds at least one.
    """
    keys = sorted({prompt_key(chat) for chat in chats}, key=lambda key: _position(key, "split"))
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
    splits: dict[Split, list[Chat]] = {split: [] for split in SPLITS}
    for chat in chats:
        splits[by_key[prompt_key(chat)]].append(chat)
    return splits


def limit_by_hash(chats: Sequence[Chat], limit: int | None) -> list[Chat]:
    """At most `limit` chats in their order, always the same ones."""
    if limit is None or len(chats) <= limit:
        return list(chats)
    ranked = sorted(range(len(chats)), key=lambda i: (_position(prompt_key(chats[i]), "limit"), i))
    return [chats[i] for i in sorted(ranked[:limit])]
