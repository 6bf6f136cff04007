"""A vote: which of two answers to a row a person found better, or what would have been right."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from luthier.errors import DataError
from luthier.evaluation import Outcome

Choice = Literal["first", "second", "tie", "both bad"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
OUTCOMES: Mapping[str, Outcome] = {"first": 1.0, "second": 0.0, "tie": 0.5, "both bad": 0.5}


@dataclass(frozen=True, slots=True)
class Vote:
    """What a person said of two systems' answers to a row."""

    row: str
    """Id of the row."""
    first: str
    """Name of a system; which of the two stood on the left is not in its order."""
    second: str
    rater: str
    choice: Choice
    correction: str = ""
    """The answer that would have been right, where the person wrote one."""
    at: str = ""
    """When, ISO 8601."""

    @property
    def outcome(self) -> Outcome:
        """How it ended for the first system: 1, 0 or 0.5."""
        return OUTCOMES[self.choice]


def read_vote(content: Mapping[str, Any], where: str) -> Vote:
    """The vote that a line holds. Raises DataError."""
    names = [name for name in Vote.__dataclass_fields__ if name in content]
    known = {name: content[name] for name in names}
    is_whole = {"row", "first", "second", "rater", "choice"} <= known.keys()
    is_text = all(isinstance(value, str) for value in known.values())
    if not is_whole or not is_text or known["choice"] not in CHOICES:
        raise DataError("is no vote", where=where, accepted=f"a choice of {', '.join(CHOICES)}")
    return Vote(**known)
