"""How far judges agree: people with each other, a model with people.

Krippendorff's alpha for any number of raters with gaps, nominal (Krippendorff 2011, "Computing
Krippendorff's alpha-reliability"); Cohen's kappa and Spearman's rank correlation for two. And what
few human votes and many of a model say together: prediction-powered inference (Angelopoulos,
Duchi and Zrnic 2023, PPI++, arXiv 2311.01453).
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import scipy

from luthier.evaluation.values import Estimate

LEAST_SHARED = 50
"""Rows that both judged, below which their agreement says little."""


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Alpha of nominal ratings, those of each unit together; 1 is agreement, 0 is chance.

    None where no unit has two ratings. Where all ratings are the same, 1.
    """
    together: dict[tuple[Hashable, Hashable], float] = defaultdict(float)
    for ratings in units:
        for first, second in permutations(ratings, 2):
            together[first, second] += 1 / (len(ratings) - 1)
    total = sum(together.values())
    if not total:
        return None
    by_value: dict[Hashable, float] = defaultdict(float)
    for (first, _), number in together.items():
        by_value[first] += number
    disagreed = sum(number for (a, b), number in together.items() if a != b)
    expected = (total**2 - sum(n**2 for n in by_value.values())) / (total - 1)
    return 1 - disagreed / expected if expected else 1.0


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two judges said of the same rows."""

    n: int
    alike: float
    """Share of rows on which they agree."""
    kappa: float | None
    """Cohen's; None where one of them always says the same."""
    spearman: float | None
    table: Mapping[tuple[str, str], int]
    """What the first and the second said -> rows."""


def agreement(
    first: Sequence[float], second: Sequence[float], names: Mapping[float, str]
) -> Agreement:
    """Of two judges' outcomes on the same rows, at least one; `names` puts outcomes in words."""
    a, b = np.asarray(first), np.asarray(second)
    alike, n = float((a == b).mean()), len(a)
    values = sorted({*first, *second})
    chance = sum(float((a == v).mean() * (b == v).mean()) for v in values)
    varies = len(set(first)) > 1 and len(set(second)) > 1
    return Agreement(
        n,
        alike,
        (alike - chance) / (1 - chance) if chance < 1 else None,
        float(scipy.stats.spearmanr(a, b).statistic) if varies and n > 2 else None,
        Counter((names[x], names[y]) for x, y in zip(first, second, strict=True)),
    )


def prediction_powered_mean(
    human: Sequence[float], judged: Sequence[float], others: Sequence[float], confidence: float
) -> Estimate:
    """Mean of what people would say of all rows, from few of theirs and many of a judge's.

    `human` and `judged` are of the same rows, `others` the judge's of rows that nobody else saw.
    The judge's part is weighted by how well it predicts people; a useless judge changes nothing.
    """
    y, f, rest = (np.asarray(x, dtype=np.float64) for x in (human, judged, others))
    n, count = len(y), len(rest)
    if n < 2 or not count:
        value = float(y.mean()) if n else None
        return Estimate(value, None, None, n, "too few rows for an interval")
    spread = float(np.concatenate((f, rest)).var(ddof=1))
    weight = 0.0
    if spread:
        weight = min(max(float(np.cov(y, f)[0, 1]) / ((1 + n / count) * spread), 0.0), 1.0)
    value = float(weight * rest.mean() + (y - weight * f).mean())
    variance = weight**2 * rest.var(ddof=1) / count + (y - weight * f).var(ddof=1) / n
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1) * np.sqrt(variance))
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), n, "PPI++")
