"""What a search tries: fields of a recipe with ranges or choices, as texts say them.

`training.learning_rate=1e-5..1e-3` is a range, by its logarithm where it spans a factor of ten or
more; `tuning.rank=4,8,16` are choices. Whether a value can stand in the field is for the recipe to
say. Only what leaves rows and the meaning of the loss as they are may be tried: losses of other
rows, or of another objective, cannot be compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.errors import ConfigError

TRIED = ("training", "tuning")
"""Sections whose fields may be tried."""
FIXED = {
    "training.max_length": "rows that are too long are left out, and losses of other rows cannot "
    "be compared",
    "training.seed": "what a seed brings by chance is nothing to choose by",
}
LOGARITHMIC = 10.0
"""Factor from which a range is laid out by its logarithm."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high."""

    field: str
    low: float
    high: float
    is_whole: bool

    @property
    def is_logarithmic(self) -> bool:
        """Whether equal factors are equally likely, rather than equal differences."""
        return self.low > 0 and self.high >= LOGARITHMIC * self.low

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends, as a recipe may be given them."""
        return self.written(self.low), self.written(self.high)

    def written(self, value: float) -> str:
        """A value of it as a recipe may be given it."""
        return str(int(value)) if self.is_whole else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values, as a recipe may be given them."""

    field: str
    values: tuple[str, ...]

    @property
    def ends(self) -> tuple[str, ...]:
        """All of them: each may be one that the field refuses."""
        return self.values


Tried = Range | Choices


def read_space(texts: Sequence[str]) -> tuple[Tried, ...]:
    """Ranges and choices from texts such as "tuning.rank=4,8,16". Raises ConfigError."""
    found = [_read(text) for text in texts]
    names = [tried.field for tried in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice", where="--try", accepted="each field once")
    return tuple(found)


def _read(text: str) -> Tried:
    field, _, value = text.partition("=")
    section = field.partition(".")[0]
    if section not in TRIED or field in FIXED or "." not in field:
        why = FIXED.get(field, "only fields of training and tuning leave losses comparable")
        raise ConfigError(
            f"is {text!r}", where="--try", advice=why,
            accepted="such as training.learning_rate=1e-5..1e-3 or tuning.rank=4,8,16",
        )  # fmt: skip
    if ".." in value:
        return _range(field, value)
    values = tuple(one.strip() for one in value.split(",") if one.strip())
    if len(set(values)) < 2 or len(set(values)) < len(values):
        raise ConfigError(f"is {text!r}", where="--try", accepted="two different values or more")
    return Choices(field, values)


def _range(field: str, value: str) -> Range:
    low, _, high = value.partition("..")
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = math.nan, math.nan
    if not (all(map(math.isfinite, ends)) and ends[0] < ends[1]):
        raise ConfigError(
            f"is {value!r}", where=f"--try {field}", accepted="LOW..HIGH, such as 1e-5..1e-3"
        )
    is_whole = all(text.strip().lstrip("-").isdigit() for text in (low, high))
    return Range(field, *ends, is_whole)
