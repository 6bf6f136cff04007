"""Intervals and tests: counts and numbers come in, limits and p-values go out.

One rate gets Wilson's interval. Two systems on the same rows are compared in pairs: pass/fail by
McNemar's test with Tango's score interval, numbers by Student's t from 100 rows on and by the BCa
bootstrap with a sign-flip permutation test below. Nothing here knows metrics, rows or systems; no
result is ever NaN, and the random generator is an argument.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy

# Fewer discordant pairs than this get McNemar's exact conditional test, others its mid-p version.
MIN_DISCORDANT_FOR_MID_P = 25
# From this many rows on the mean is close enough to normal for Student's t.
MIN_ROWS_FOR_T = 100

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """Two limits and how they were made; None where the data cannot give any."""

    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True, slots=True)
class Significance:
    """A two-sided p-value and the test it comes from."""

    p_value: float
    test: str


def wilson(num_passed: int, n: int, confidence: float) -> Interval:
    """Wilson's score interval for one rate (Wilson 1927); no limits without rows."""
    if n == 0:
        return Interval(None, None, "no rows")
    limits = scipy.stats.binomtest(num_passed, n).proportion_ci(confidence, method="wilson")
    return Interval(float(limits.low), float(limits.high), "Wilson")


def wilson_of(rate: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's limits of a rate seen in so many rows, which need not be a whole number."""
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def newcombe(first: tuple[int, int], second: tuple[int, int], confidence: float) -> Interval:
    """Interval for the difference of two rates of different rows, each as (passed, n).

    Newcombe 1998, Statistics in Medicine 17:873, method 10: from Wilson's limits of both.
    """
    if not (first[1] and second[1]):
        return Interval(None, None, "no rows")
    (p1, low1, high1), (p2, low2, high2) = (
        (passed / n, *wilson_of(passed / n, n, confidence)) for passed, n in (first, second)
    )
    difference = p1 - p2
    low = difference - sqrt((p1 - low1) ** 2 + (high2 - p2) ** 2)
    high = difference + sqrt((high1 - p1) ** 2 + (p2 - low2) ** 2)
    return Interval(low, high, "Newcombe")


def mcnemar(up: int, down: int) -> Significance:
    """McNemar's test on the pairs that changed, `up` one way and `down` the other.

    The exact conditional p below 25 such pairs, else the mid-p: twice the smaller tail less the
    probability of the observed count (Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol
    13:91). No changed pair: p is 1.
    """
    changed, smaller = up + down, min(up, down)
    if changed < MIN_DISCORDANT_FOR_MID_P:
        p_value = float(scipy.stats.binomtest(smaller, changed).pvalue) if changed else 1.0
        return Significance(p_value, "McNemar exact")
    tail = scipy.stats.binom.cdf(smaller, changed, 0.5) + scipy.stats.binom.cdf(
        smaller - 1, changed, 0.5
    )
    return Significance(float(min(tail, 1.0)), "McNemar mid-p")


def tango(up: int, down: int, n: int, confidence: float) -> Interval:
    """Score interval for the difference (up - down) / n of paired rates.

    Tango 1998, Statistics in Medicine 17:891, equations 24 to 26, in terms of the difference
    itself: the limits are where the score statistic, its variance restricted to the supposed
    difference, equals the normal quantile. At a difference of 0 the statistic is McNemar's.
    """
    if n == 0:
        return Interval(None, None, "no rows")
    observed, quantile = (up - down) / n, float(scipy.stats.norm.ppf((1 + confidence) / 2))

    def excess(supposed: float) -> float:
        slope = (2 * n - up + down) * supposed - up - down
        root = sqrt(max(slope * slope + 8 * n * down * supposed * (1 - supposed), 0.0))
        restricted_down = (root - slope) / (4 * n)
        variance = n * (2 * restricted_down + supposed * (1 - supposed))
        return float((up - down - n * supposed) ** 2 - quantile**2 * variance)

    def limit(end: int) -> float:
        # A hair inside the observed value: with no changed pair that point itself is a root.
        start = observed + end * 1e-9
        return (
            float(end)
            if abs(start) >= 1
            else float(scipy.optimize.brentq(excess, start, end, xtol=1e-12))
        )

    return Interval(limit(-1), limit(+1), "Tango score")


def mean_interval(
    values: Sequence[float], confidence: float, resamples: int, rng: np.random.Generator
) -> Interval:
    """Interval for a mean: Student's t from 100 values on, else BCa bootstrap (Efron 1987).

    One value has no interval; equal values have one without width.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        return Interval(None, None, "too few rows for an interval")
    if _is_constant(data):
        return Interval(float(data[0]), float(data[0]), "all rows equal")
    data, scale = _scaled(data)
    if len(data) >= MIN_ROWS_FOR_T:
        limits, method = (
            scipy.stats.ttest_1samp(data, 0).confidence_interval(confidence),
            "Student's t",
        )
    else:
        limits, method = _bootstrap(data, confidence, resamples, rng), "BCa bootstrap"
    return Interval(float(limits.low) * scale, float(limits.high) * scale, method)


def mean_test(
    differences: Sequence[float], resamples: int, rng: np.random.Generator
) -> Significance:
    """Test that paired differences have mean 0: paired t from 100 on, else sign flips.

    The sign-flip p is exact when there are no more sign patterns than resamples, else it counts
    the observed pattern among the drawn ones (Phipson and Smyth 2010) and is never 0.
    """
    data = np.asarray(differences, dtype=np.float64)
    if len(data) == 0 or not data.any():
        return Significance(1.0, "sign-flip permutation")
    if _is_constant(data):
        # Only the two patterns of one sign are as extreme, out of 2 ** n.
        return Significance(2.0 ** (1 - len(data)), "sign-flip permutation")
    data, _ = _scaled(data)
    if len(data) >= MIN_ROWS_FOR_T:
        return Significance(float(scipy.stats.ttest_1samp(data, 0).pvalue), "paired t")
    flips = scipy.stats.permutation_test(
        (data,), np.mean, permutation_type="samples", n_resamples=resamples, rng=rng
    )
    return Significance(float(flips.pvalue), "sign-flip permutation")


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for making several claims at once (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min((len(p_values) - rank) * p_values[index], 1.0))
        adjusted[index] = highest
    return adjusted


def _bootstrap(data: Numbers, confidence: float, resamples: int, rng: np.random.Generator) -> Any:
    drawn = scipy.stats.bootstrap(
        (data,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="BCa",
        rng=rng,
    )
    return drawn.confidence_interval


def _is_constant(data: Numbers) -> bool:
    # Rounding noise is no spread: moments of it under- and overflow.
    return bool(np.ptp(data) <= 1e-12 * np.abs(data).max())


def _scaled(data: Numbers) -> tuple[Numbers, float]:
    # Third powers of tiny values vanish, and the acceleration of BCa would be 0 / 0.
    scale = float(np.abs(data).max())
    return data / scale, scale
