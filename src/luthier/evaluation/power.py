"""What a test set can show: the smallest detectable difference, and the rows a difference needs.

Detectable means found with 80 % power by the very test that `statistics` would use, two-sided at
the given confidence. Numbers come in and go out; nothing here knows metrics, rows or systems.
"""

from collections.abc import Sequence
from math import ceil, sqrt
from statistics import NormalDist, stdev

import numpy as np
import scipy

from luthier.evaluation.statistics import MIN_DISCORDANT_FOR_MID_P

POWER = 0.8
NEVER = 1e-13
"""Probability of counts that are left out of a sum."""


def rate_power(difference: float, against: float, n: int, confidence: float) -> float:
    """Power of McNemar's test as `statistics.mcnemar` makes it, summed exactly but for 1e-12.

    `against` is the share of rows that change against the difference; `against + difference`
    change with it. Given the number of changed rows, those that change with it are binomial.
    """
    alpha = 1 - confidence
    changed_share = 2 * against + difference
    # Numbers of changed rows beyond these limits are too rare to count.
    fewest, most = scipy.stats.binom.ppf((NEVER, 1 - NEVER), n, changed_share)
    changed = np.arange(max(0, fewest), most + 1)
    # Smallest count that the test calls significant, for each number of changed rows.
    count = scipy.stats.binom.isf(alpha / 2, changed, 0.5)
    both_tails = scipy.stats.binom.sf(count, changed, 0.5) + scipy.stats.binom.sf(
        count - 1, changed, 0.5
    )
    count += (changed < MIN_DISCORDANT_FOR_MID_P) | (both_tails >= alpha)
    with_it = (against + difference) / changed_share
    rejects = scipy.stats.binom.sf(count - 1, changed, with_it)
    rejects += scipy.stats.binom.cdf(changed - count, changed, with_it)
    return float(scipy.stats.binom.pmf(changed, n, changed_share) @ rejects)


def detectable_rate_difference(num_against: int, n: int, confidence: float) -> float | None:
    """Smallest difference of paired rates that n rows show with 80 % power.

    Rows that changed against the trend (the rarer direction) are taken as the noise that stays
    whatever the difference is; the rows that changed with it are the effect and do not count as
    noise. None when n rows cannot show even the largest difference.
    """
    if n == 0:
        return None
    against = num_against / n
    largest = 1 - 2 * against

    def shortfall(difference: float) -> float:
        return rate_power(difference, against, n, confidence) - POWER

    if largest <= 0 or shortfall(largest) < 0:
        return None
    return float(scipy.optimize.brentq(shortfall, 1e-9, largest, xtol=1e-6))


def detectable_at(changed_share: float, n: int, confidence: float) -> float | None:
    """Smallest difference of paired rates that n rows show with 80 % power, when such a share of
    rows changes one way or the other; None when they cannot show any. For before a run."""

    def shortfall(difference: float) -> float:
        return rate_power(difference, (changed_share - difference) / 2, n, confidence) - POWER

    if n == 0 or shortfall(changed_share) < 0:
        return None
    return float(scipy.optimize.brentq(shortfall, 1e-9, changed_share, xtol=1e-6))


def detectable_mean_difference(differences: Sequence[float], confidence: float) -> float | None:
    """Smallest mean of paired differences that this many rows show with 80 % power.

    From the standard deviation of the differences and Student's t; None when they do not vary or
    there are fewer than two.
    """
    n = len(differences)
    return detectable_by(stdev(differences) / sqrt(n), n - 1, confidence) if n > 1 else None


def detectable_by(standard_error: float, freedom: int, confidence: float) -> float | None:
    """Smallest mean that is shown with 80 % power at such a standard error; None where it is 0."""
    if freedom < 1 or not standard_error:
        return None
    quantiles = scipy.stats.t.ppf((1 + confidence) / 2, freedom) + scipy.stats.t.ppf(POWER, freedom)
    return float(quantiles * standard_error)


def rows_for_rate_difference(difference: float, changed_share: float, confidence: float) -> int:
    """Rows that McNemar's test needs to show a difference with 80 % power.

    Connor 1987, Biometrics 43:207, equation for the unconditional size without correction;
    `changed_share` is the share of rows on which the two systems disagree.
    """
    for_test, for_power = NormalDist().inv_cdf((1 + confidence) / 2), NormalDist().inv_cdf(POWER)
    spread = sqrt(max(changed_share - difference**2, 0.0))
    return ceil(((for_test * sqrt(changed_share) + for_power * spread) / difference) ** 2)


def rows_for_mean_difference(difference: float, detectable: float, n: int) -> int:
    """Rows that a mean difference needs, when n rows of the same spread can show `detectable`.

    The standard error falls with the square root of the rows.
    """
    return ceil(n * (detectable / difference) ** 2)
