"""Numbers as a reader sees them: one way per kind of quantity, and one sign for "no data".

Values go in as the run measured them, text comes out; nothing is rounded twice. Minus is a true
minus and units are joined by a no-break space, so that a number never breaks across lines.
"""

import math
from typing import Literal, NamedTuple

from luthier.evaluation.values import Estimate

Unit = Literal["share", "points", "nats", "plain"]

MISSING = "\u2013"
MINUS = "\u2212"
SPACE = "\u00a0"
MINUTE = 60
HOUR = 3600


def plain_number(value: float, decimals: int) -> str:
    """A number with a fixed number of decimals, thousands parted, and no minus before a zero."""
    text = f"{abs(value):,.{decimals}f}"
    is_zero = not any(digit in "123456789" for digit in text)
    return text if value >= 0 or is_zero else MINUS + text


def metric_value(value: float | None, unit: Unit) -> str:
    """A metric's value in its unit."""
    if value is None or not math.isfinite(value):
        return MISSING
    return _with_percent(_in_unit(value, unit), unit)


def metric_interval(low: float | None, high: float | None, unit: Unit) -> str:
    """An interval as "66.4 to 80.4 %"; empty when there is none."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return _with_percent(f"{_in_unit(low, unit)} to {_in_unit(high, unit)}", unit)


class WithInterval(NamedTuple):
    """A number and its interval, in words."""

    value: str
    interval: str


def with_interval(estimate: Estimate | None, unit: Unit) -> WithInterval:
    """An estimate in its unit."""
    if estimate is None:
        return WithInterval(MISSING, "")
    interval = metric_interval(estimate.low, estimate.high, unit)
    return WithInterval(metric_value(estimate.value, unit), interval)


def difference(value: float | None, unit: Unit) -> str:
    """A difference without its sign: percentages differ by points."""
    if value is None or not math.isfinite(value):
        return MISSING
    words = {"nats": f"{SPACE}nats", "plain": ""}.get(unit, f"{SPACE}points")
    return _in_unit(abs(value), unit) + words


def signed_difference(value: float | None, unit: Unit) -> str:
    """A difference with its sign, which is written for gains too."""
    if value is None or not math.isfinite(value):
        return MISSING
    sign = "+" if value > 0 else MINUS if value < 0 else ""
    return sign + difference(value, unit)


def difference_interval(low: float | None, high: float | None, unit: Unit) -> str:
    """An interval of differences as "63.0 to 77.3", without a unit."""
    return metric_interval(low, high, unit).removesuffix(f"{SPACE}%")


def perplexity(value: float | None) -> str:
    """A perplexity: two decimals, none where they would say nothing."""
    if value is None or not math.isfinite(value):
        return MISSING
    return plain_number(value, 2 if value < 100 else 0)


def p_value(value: float) -> str:
    """A p-value to three decimals, never as 0."""
    if not math.isfinite(value):
        return MISSING
    if value < 0.001:
        return f"p{SPACE}<{SPACE}0.001"
    return f"p{SPACE}={SPACE}{value:.3f}"


def count(value: int | None) -> str:
    """A whole number with its thousands parted."""
    return MISSING if value is None else plain_number(value, 0)


def counted(value: int, noun: str) -> str:
    """A count with its noun in the right number."""
    return f"{count(value)}{SPACE}{noun}{'' if value == 1 else 's'}"


def loss(value: float | None) -> str:
    """A loss in nats."""
    return metric_value(value, "nats")


def learning_rate(value: float) -> str:
    """A learning rate: 0.001, but 4.9e-4."""
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 3.2 s, 45 s, 6 min 53 s, 1 h 02 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f}{SPACE}s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole}{SPACE}s"
    if whole < HOUR:
        return f"{whole // MINUTE}{SPACE}min {whole % MINUTE:02d}{SPACE}s"
    return f"{whole // HOUR}{SPACE}h {whole % HOUR // MINUTE:02d}{SPACE}min"


def memory(num_bytes: int | None) -> str:
    """Bytes in binary units."""
    if num_bytes is None:
        return MISSING
    mebibytes = num_bytes / 2**20
    if mebibytes < 1024:
        return f"{mebibytes:,.0f}{SPACE}MiB"
    return f"{mebibytes / 1024:,.2f}{SPACE}GiB"


def _in_unit(value: float, unit: Unit) -> str:
    if unit == "share":
        return plain_number(100 * value, 1)
    return plain_number(value, 1 if unit == "points" else 3)


def _with_percent(text: str, unit: Unit) -> str:
    return f"{text}{SPACE}%" if unit == "share" else text
