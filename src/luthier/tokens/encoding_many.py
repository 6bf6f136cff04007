"""Many chats become ids on all cores, and only once; as one by one, and in their order."""

import os
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Literal

from luthier.data import Chat, Text
from luthier.errors import TemplateError
from luthier.tokens.encoded import IGNORED, Encoded
from luthier.tokens.encoding import cut_document, encode_chat
from luthier.tokens.kept_ids import Ids, KeptIds
from luthier.tokens.tokenizer import Tokenizer

TrainOn = Literal["all", "last"]
WORTH_IT, PART = 4000, 500
"""Chats from which more processes than one pay, and those that one is given at a time."""


def encode_chats(
    tokenizer: Tokenizer, chats: Sequence[Chat], train_on: TrainOn, kept: KeptIds | None = None
) -> list[Encoded | TemplateError]:
    """Ids and mask of each chat, or what is wrong with it; those of all are `kept` if none is."""
    found: list[Ids | TemplateError] = []

    def compute() -> list[Ids] | None:
        found.extend(_computed(tokenizer, chats, train_on))
        right = [one for one in found if not isinstance(one, TemplateError)]
        return right if len(right) == len(found) else None

    if kept is None or not tokenizer.fingerprint:
        compute()
        items: Sequence[Ids | TemplateError] = found
    else:
        said = ((chat.messages, chat.tools) for chat in chats)
        items = kept.get(chain([tokenizer.fingerprint, train_on], said), compute) or found
    return [
        item if isinstance(item, TemplateError) else _encoded(chat, item)
        for chat, item in zip(chats, items, strict=True)
    ]


def encode_documents(
    tokenizer: Tokenizer, texts: Sequence[Text], max_length: int, kept: KeptIds | None = None
) -> list[list[Encoded]]:
    """Pieces of each text, as `encode_text` makes them."""

    def compute() -> list[Ids]:
        return [(ids, ()) for ids in tokenizer.encode_documents([text.text for text in texts])]

    if kept is None or not tokenizer.fingerprint:
        items: Sequence[Ids] = compute()
    else:
        said = (text.text for text in texts)
        items = kept.get(chain([tokenizer.fingerprint, "document"], said), compute) or []
    return [
        cut_document(text, ids, max_length) for text, (ids, _) in zip(texts, items, strict=True)
    ]


def _encoded(chat: Chat, item: Ids) -> Encoded:
    ids, bounds = item
    spans = tuple(zip(bounds[::2], bounds[1::2], strict=True))
    labels = [IGNORED] * len(ids)
    for start, end in spans:
        labels[start:end] = ids[start:end]
    return Encoded(chat.id, ids, labels, spans)


def _computed(
    tokenizer: Tokenizer, chats: Sequence[Chat], train_on: TrainOn
) -> list[Ids | TemplateError]:
    workers = _num_workers() if len(chats) >= WORTH_IT and tokenizer.files is not None else 1
    if workers == 1 or tokenizer.files is None:
        return _encode_part(tokenizer, chats, train_on)
    from joblib import Parallel, delayed

    parts = [chats[start : start + PART] for start in range(0, len(chats), PART)]
    encode = delayed(_encode_elsewhere)
    found = Parallel(n_jobs=workers)(encode(tokenizer.files, part, train_on) for part in parts)
    return [*chain.from_iterable(found)]


def _num_workers() -> int:
    """One for each core that this process may use, shared with those that train beside it."""
    from joblib import cpu_count

    return max(1, int(cpu_count()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _encode_elsewhere(
    files: tuple[Path, Path | None], chats: Sequence[Chat], train_on: TrainOn
) -> list[Ids | TemplateError]:
    return _encode_part(_opened(*files), chats, train_on)


@lru_cache(1)
def _opened(folder: Path, template: Path | None) -> Tokenizer:
    """In a process that encodes for another."""
    return Tokenizer.load(folder, template)


def _encode_part(
    tokenizer: Tokenizer, chats: Sequence[Chat], train_on: TrainOn
) -> list[Ids | TemplateError]:
    found: list[Ids | TemplateError] = []
    for chat in chats:
        try:
            encoded = encode_chat(tokenizer, chat, train_on)
            found.append((encoded.input_ids, tuple(chain.from_iterable(encoded.spans))))
        except TemplateError as error:
            found.append(error)
    return found
