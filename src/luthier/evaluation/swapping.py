"""Does an answer change when only a group is named otherwise? Rows are asked twice, terms swapped.

A counterfactual probe (Kusner et al. 2017; Dixon et al. 2018): "he" for "she" in what is asked, and
everything else as it is. A changed answer is no proof of bias, for the term may matter; that it
changes one way more than the other, in many rows, is a sign.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from luthier.data import Chat, Example, Labelled, Message, Pair, Preference, Rated
from luthier.errors import ConfigError

Swaps = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Changed:
    """A row whose answer changed."""

    place: str
    asked: str
    swapped: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of asking rows twice."""

    num_rows: int
    """That name a term."""
    num_changed: int
    low: float
    high: float
    """Wilson's interval of the share that changed."""
    shifts: Mapping[tuple[str, str], int]
    """Answer as asked, answer swapped -> rows, the most frequent first."""
    changed: tuple[Changed, ...]

    @property
    def share(self) -> float:
        """Of rows whose answer changed."""
        return self.num_changed / self.num_rows


def read_swaps(pairs: Sequence[str]) -> dict[str, str]:
    """Terms such as "he=she", each for the other. Raises ConfigError."""
    swaps: dict[str, str] = {}
    for pair in pairs:
        one, _, other = (part.strip().casefold() for part in pair.partition("="))
        if not one or not other or one == other:
            raise ConfigError(
                f"is {pair!r}", where="swap", accepted="TERM=TERM, two different ones"
            )
        if one in swaps or other in swaps:
            taken = one if one in swaps else other
            raise ConfigError(f"swaps {taken!r} twice", where="swap", accepted="each term once")
        swaps |= {one: other, other: one}
    if not swaps:
        raise ConfigError("is missing", where="swap", accepted="TERM=TERM, such as he=she")
    return swaps


def swapped_text(text: str, swaps: Swaps) -> str:
    """The text with every term for its other, as whole words, in the case they stand in."""
    # The longest first, so that of "grand mother" and "mother" the first is meant.
    terms = sorted(swaps, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, terms))})(?!\w)", re.IGNORECASE)

    def other(match: re.Match[str]) -> str:
        said = match.group()
        found = swaps[said.casefold()]
        if said.isupper() and len(said) > 1:
            return found.upper()
        return found[:1].upper() + found[1:] if said[:1].isupper() else found

    return pattern.sub(other, text)


def swapped(example: Example, swaps: Swaps) -> Example | None:
    """The example asking with swapped terms; None where it names none. Instructions stay."""

    def message(given: Message) -> Message:
        if given.role in ("system", "developer"):
            return given
        return replace(given, content=swapped_text(given.content, swaps))

    found: Example
    match example:
        case Chat():
            end = len(example.prompt)
            asked = tuple(map(message, example.prompt))
            found = replace(example, messages=(*asked, *example.messages[end:]))
        case Rated():
            inner = swapped(example.chat, swaps)
            found = replace(example, chat=inner) if isinstance(inner, Chat) else example
        case Preference():
            found = replace(example, prompt=tuple(map(message, example.prompt)))
        case Labelled():
            second = None if example.second is None else swapped_text(example.second, swaps)
            found = replace(example, text=swapped_text(example.text, swaps), second=second)
        case Pair():
            found = replace(example, anchor=swapped_text(example.anchor, swaps))
        case _:
            return None
    return None if found == example else found


def compare_swapped(
    asked: Sequence[Example], other: Sequence[Example], answers: Sequence[tuple[str, str]]
) -> Probe:
    """What changed, of rows as asked and swapped, and the two answers to each.

    Raises ConfigError where there are no rows.
    """
    from scipy.stats import binomtest

    if not asked:
        raise ConfigError(
            "no row names a term", where="swap", advice="name terms that stand in the questions"
        )
    shifts = Counter((before, after) for before, after in answers if before != after)
    changed = tuple(
        Changed(str(one.place), _question(one), _question(two), before, after)
        for one, two, (before, after) in zip(asked, other, answers, strict=True)
        if before != after
    )
    interval = binomtest(len(changed), len(asked)).proportion_ci(method="wilson")
    return Probe(
        len(asked), len(changed), float(interval.low), float(interval.high),
        dict(shifts.most_common()), changed,
    )  # fmt: skip


def _question(example: Example) -> str:
    said = [m.content for m in example.prompt if m.role not in ("system", "developer")]
    return "\n".join(said)
