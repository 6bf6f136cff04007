"""Rows that belong together (of one document, user, template) are fewer facts than they are rows.

Means get a standard error over groups, each group's rows taken together (Miller 2024, arXiv
2411.00640, section 2.2), with Student's t over the groups; rates Wilson's interval with the number
of independent rows that would be as uncertain (Korn and Graubard 1998, with Wilson's interval in
the place of Clopper and Pearson's); tests flip the signs of whole groups.

Of what else there is, resampling groups covered less: rates of 0.95 in 20 groups of about 5 rows
that are alike (correlation 0.3) 82 % with percentiles and 90 % with BCa where this covers 97 %;
differences 94 % and 86 % where this covers 97 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import scipy

from luthier.evaluation.statistics import (
    MIN_ROWS_FOR_T,
    Interval,
    Numbers,
    Significance,
    mean_test,
    wilson_of,
)

MIN_GROUPS = 40
"""Groups below which all of this is rough."""


@dataclass(frozen=True, slots=True)
class Clustered:
    """A mean over rows, and how sure it is with rows in groups."""

    mean: float
    standard_error: float | None
    """None for one group."""
    num_groups: int
    n: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""
        return self.num_groups - 1


def clustered(values: Sequence[float], groups: Sequence[str]) -> Clustered:
    """Mean and standard error of values, at least one, each in the group of the same place."""
    sums, counts = _by_group(values, groups)
    mean, num_groups = float(sums.sum() / counts.sum()), len(sums)
    if num_groups < 2:
        return Clustered(mean, None, num_groups, len(values))
    residuals = sums - mean * counts
    variance = num_groups / (num_groups - 1) * float(residuals @ residuals)
    return Clustered(mean, sqrt(variance) / len(values), num_groups, len(values))


def clustered_mean(found: Clustered, confidence: float) -> Interval:
    """Interval of a mean: Student's t over the groups."""
    if found.standard_error is None:
        return Interval(None, None, "too few groups for an interval")
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, found.freedom)) * found.standard_error
    return Interval(found.mean - half, found.mean + half, _method("clustered t", found))


def clustered_rate(found: Clustered, confidence: float) -> Interval:
    """Interval of a rate: Wilson's, of as many independent rows as are as uncertain."""
    if found.standard_error is None:
        return Interval(None, None, "too few groups for an interval")
    spread = found.mean * (1 - found.mean)
    # Without any spread nothing is known of how alike rows of a group are: each counts once.
    n = spread / found.standard_error**2 if found.standard_error > 0 else found.num_groups
    tail = (1 + confidence) / 2
    few = scipy.stats.norm.ppf(tail) / scipy.stats.t.ppf(tail, found.freedom)
    effective = float(min(max(n, 1.0), found.n) * few**2)
    limits = wilson_of(found.mean, effective, confidence)
    return Interval(*limits, _method("clustered Wilson", found))


def clustered_test(
    differences: Sequence[float], groups: Sequence[str], resamples: int, rng: np.random.Generator
) -> Significance:
    """Test that paired differences have mean 0, rows of a group being of one sign's luck.

    From 100 groups on Student's t with the clustered standard error, else sign flips of groups.
    """
    sums, _ = _by_group(differences, groups)
    found = clustered(differences, groups)
    if len(sums) >= MIN_ROWS_FOR_T and found.standard_error:
        quantile = abs(found.mean) / found.standard_error
        p_value = 2 * float(scipy.stats.t.sf(quantile, found.freedom))
        return Significance(p_value, "clustered t")
    flipped = mean_test(sums.tolist(), resamples, rng)
    return Significance(flipped.p_value, "sign flips of groups")


def _by_group(values: Sequence[float], groups: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Sum and number of the values of each group."""
    _, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    weighed = np.bincount(places, weights=np.asarray(values, dtype=np.float64))
    counts: Numbers = np.bincount(places).astype(np.float64)
    return np.asarray(weighed, dtype=np.float64), counts


def _method(name: str, found: Clustered) -> str:
    return f"{name}, {found.num_groups} groups"
