"""Ballots: two answers to a row, side by side, without their authors' names.

Which answer stands on the left, and in what order rows come, depends on the row and the person, so
that neither side nor order tells anything, and that a person who goes on another day sees the same.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from luthier.data import Example
from luthier.evaluation import SystemResult
from luthier.review.votes import Choice, Vote


@dataclass(frozen=True, slots=True)
class Ballot:
    """Two answers to be compared."""

    example: Example
    left: str
    right: str
    systems: tuple[str, str]
    """The system in question, and the other: not to be shown."""
    is_swapped: bool
    """Whether the other's answer stands on the left."""

    def vote(self, choice: str, rater: str, at: str, correction: str = "") -> Vote:
        """The vote that choosing left, right, tie or both bad is."""
        left: Choice = "second" if self.is_swapped else "first"
        right: Choice = "first" if self.is_swapped else "second"
        sides: dict[str, Choice] = {"left": left, "right": right, "tie": "tie",
                                    "both bad": "both bad"}  # fmt: skip
        return Vote(self.example.id, *self.systems, rater, sides[choice], correction, at)


def ballots(
    examples: Sequence[Example],
    own: SystemResult,
    other: SystemResult,
    rater: str,
    voted: Collection[str] = (),
) -> Iterator[Ballot]:
    """Ballots on rows that both answered and that are not in `voted`; equal answers are none."""
    rows = sorted(
        zip(examples, own.predictions, other.predictions, strict=True),
        key=lambda row: _luck(rater, row[0].id, "order"),
    )
    for example, first, second in rows:
        is_same = first.text.strip() == second.text.strip()
        if example.id in voted or first.error or second.error or is_same:
            continue
        is_swapped = bool(_luck(rater, example.id, own.name, other.name)[0] & 1)
        left, right = (second, first) if is_swapped else (first, second)
        yield Ballot(example, left.text, right.text, (own.name, other.name), is_swapped)


def _luck(*parts: str) -> bytes:
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
