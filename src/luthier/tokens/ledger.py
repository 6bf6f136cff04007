"""A ledger of rows: what was kept, what was dropped and why, by id, with totals.

Nothing is truncated. An example longer than the limit is dropped whole and listed (a raw text is
cut into pieces instead, none of it lost); one without a single supervised token is listed too.
Above the allowed share the run refuses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luthier.data import Chat, Example, Preference, Rated, Split, Text
from luthier.errors import DataError, TemplateError
from luthier.tokens.encoded import Encoded, EncodedExample, EncodedPair
from luthier.tokens.encoding import mismatch
from luthier.tokens.encoding_many import encode_chats, encode_documents
from luthier.tokens.kept_ids import KeptIds
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
    """The kept examples of a split, their ids, and the ledger.

    `encoded` is as long as `examples`, but for texts, of which there may be several pieces each.
    """

    examples: tuple[Example, ...]
    encoded: tuple[EncodedExample, ...]
    ledger: Ledger


def encode_split(
    tokenizer: Tokenizer,
    split: Split,
    examples: Sequence[Example],
    *,
    train_on: str,
    max_length: int,
    kept_ids: KeptIds | None = None,
) -> EncodedSplit:
    """Encode every example of a split, and prove its mask; long and unsupervised ones are dropped.

    What was encoded before is taken from `kept_ids`.

    Raises TemplateError listing every chat whose render breaks the rules of `encoding`.
    """
    kept: list[tuple[Example, list[EncodedExample]]] = []
    dropped: list[Dropped] = []
    broken: list[TemplateError] = []
    for example, encoded in zip(
        examples, _encode(tokenizer, examples, train_on, max_length, kept_ids), strict=True
    ):
        if isinstance(encoded, TemplateError):
            broken.append(encoded)
            continue
        length = max(sequence.num_tokens for e in encoded for sequence in e.sequences)
        if length > max_length:
            reason = f"longer than {max_length} tokens"
            dropped.append(Dropped(example.id, str(example.place), reason, length))
        elif any(not s.num_supervised for e in encoded for s in e.sequences):
            reason = "nothing to learn from"
            dropped.append(Dropped(example.id, str(example.place), reason, length))
        else:
            kept.append((example, encoded))
    if broken:
        raise _all_broken(split, broken, len(examples))
    pieces = _with_mismatches([piece for _, encoded in kept for piece in encoded], kept)
    sequences = [sequence for piece in pieces for sequence in piece.sequences]
    ledger = Ledger(
        split,
        num_rows=len(examples),
        num_kept=len(kept),
        dropped=tuple(dropped),
        num_tokens=sum(piece.num_tokens for piece in pieces),
        num_supervised=sum(piece.num_supervised for piece in pieces),
        longest=max((sequence.num_tokens for sequence in sequences), default=0),
    )
    return EncodedSplit(tuple(example for example, _ in kept), tuple(pieces), ledger)


def _encode(
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    train_on: str,
    max_length: int,
    kept_ids: KeptIds | None,
) -> Iterator[list[EncodedExample] | TemplateError]:
    """Pieces of each example, or what is wrong with it. All are of one kind."""
    if examples and isinstance(examples[0], Text):
        texts = [example for example in examples if isinstance(example, Text)]
        for pieces in encode_documents(tokenizer, texts, max_length, kept_ids):
            yield [*pieces]
        return
    chats = [chat for example in examples for chat in _chats(example)]
    is_whole = train_on != "last" and bool(examples) and isinstance(examples[0], Chat)
    encoded = iter(encode_chats(tokenizer, chats, "all" if is_whole else "last", kept_ids))
    for example in examples:
        own = [next(encoded) for _ in _chats(example)]
        wrong = next((one for one in own if isinstance(one, TemplateError)), None)
        right = [one for one in own if isinstance(one, Encoded)]
        is_pair = isinstance(example, Preference)
        yield wrong or ([EncodedPair(right[0], right[1])] if is_pair else [*right])


def _chats(example: Example) -> tuple[Chat, ...]:
    match example:
        case Chat():
            return (example,)
        case Rated():
            return (example.chat,)
        case Preference():
            return example.chats
        case _:
            raise TypeError(f"{example.id} is to be read whole")


def _with_mismatches(
    pieces: list[EncodedExample], kept: Sequence[tuple[Example, object]]
) -> list[EncodedExample]:
    """The pieces; rated answers beside their prompts with other answers."""
    marks = [example.is_good for example, _ in kept if isinstance(example, Rated)]
    if not marks:
        return pieces
    answers = [piece for piece in pieces if isinstance(piece, Encoded)]
    return [*mismatch(list(zip(answers, marks, strict=True)))]


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
