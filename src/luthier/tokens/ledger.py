"""A ledger of rows: what was kept, what was dropped and why, by id, with totals.

Nothing is truncated. A chat longer than the limit is dropped whole and listed; a chat without a
single supervised token is listed too. Above the allowed share the run refuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from luthier.data import Chat, Split
from luthier.errors import DataError, TemplateError
from luthier.tokens.encoding import Encoded, encode_chat
from luthier.tokens.tokenizer import Tokenizer

MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class Dropped:
    """One row that is not used: which, where it stands, why, and its length in tokens."""

    example_id: str
    place: str
    reason: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What became of the rows of one split."""

    split: Split
    num_rows: int
    num_kept: int
    dropped: tuple[Dropped, ...]
    num_tokens: int
    """Tokens of the kept rows."""
    num_supervised: int
    """Tokens of the kept rows that carry loss."""
    longest: int
    """Tokens of the longest kept row."""


@dataclass(frozen=True, slots=True)
class EncodedSplit:
    """The kept chats of a split as ids, with the ledger."""

    chats: tuple[Chat, ...]
    encoded: tuple[Encoded, ...]
    ledger: Ledger


def encode_split(
    tokenizer: Tokenizer,
    split: Split,
    chats: Sequence[Chat],
    *,
    train_on: str,
    max_length: int,
) -> EncodedSplit:
    """Encode every chat of a split, and prove its mask; long and unsupervised ones are dropped.

    Raises TemplateError listing every chat whose render breaks the rules of `encoding`.
    """
    kept: list[tuple[Chat, Encoded]] = []
    dropped: list[Dropped] = []
    broken: list[TemplateError] = []
    for chat in chats:
        try:
            encoded = encode_chat(tokenizer, chat, "last" if train_on == "last" else "all")
        except TemplateError as error:
            broken.append(error)
            continue
        length = len(encoded.input_ids)
        if length > max_length:
            reason = f"longer than {max_length} tokens"
            dropped.append(Dropped(chat.id, str(chat.place), reason, length))
        elif encoded.num_supervised == 0:
            dropped.append(Dropped(chat.id, str(chat.place), "no turn to learn from", length))
        else:
            kept.append((chat, encoded))
    if broken:
        raise _all_broken(split, broken, len(chats))
    lengths = [len(encoded.input_ids) for _, encoded in kept]
    ledger = Ledger(
        split,
        num_rows=len(chats),
        num_kept=len(kept),
        dropped=tuple(dropped),
        num_tokens=sum(lengths),
        num_supervised=sum(encoded.num_supervised for _, encoded in kept),
        longest=max(lengths, default=0),
    )
    return EncodedSplit(
        tuple(chat for chat, _ in kept), tuple(encoded for _, encoded in kept), ledger
    )


def check_ledger(ledger: Ledger, max_dropped_share: float) -> None:
    """Raise DataError when too large a share of the rows was dropped, or none is left."""
    num_dropped = len(ledger.dropped)
    if ledger.num_kept and num_dropped <= max_dropped_share * ledger.num_rows:
        return
    raise DataError(
        f"{num_dropped} of {ledger.num_rows} {ledger.split} rows cannot be used",
        accepted=f"at most {max_dropped_share:.1%} (data.max_dropped_share)",
        advice="shorten these rows, or raise training.max_length",
        details=_listed([f"{d.place}: {d.reason} ({d.num_tokens} tokens)" for d in ledger.dropped]),
    )


def _all_broken(split: Split, broken: list[TemplateError], num_rows: int) -> TemplateError:
    if len(broken) == 1:
        return broken[0]
    return TemplateError(
        f"{len(broken)} of {num_rows} {split} rows do not survive the chat template",
        details=_listed([str(error) for error in broken]),
    )


def _listed(lines: list[str]) -> list[str]:
    more = len(lines) - MAX_LISTED
    return [*lines[:MAX_LISTED], *([f"and {more} more"] if more > 0 else [])]
