"""What twice as many training rows would bring, from how scores grew with the rows so far.

What is wrong falls with the number of rows as a power of it (Hestness et al. 2017, "Deep learning
scaling is predictable, empirically"), and more slowly near what cannot be learnt. So the power is
the smaller one of two: that of all sizes tried (least squares of logarithms), and that of the last
two, beside which a curve that has become flat is not continued as if it had not. The last size is
the anchor. The interval is a percentile bootstrap of the held-out rows, the same ones for all
sizes; that another seed of the training would have learnt otherwise is not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from luthier.evaluation.values import Metric
from luthier.evaluation.wholes import percentiles

BEST = {"share": 1.0, "points": 100.0}
"""Value of a metric, by its unit, where nothing is wrong."""
TINY = 1e-9
"""Least loss, which has a logarithm."""
ROWS_AT_ONCE = 2**24
"""Scores of drawn rows that are held at once."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Doubled:
    """The score that twice as many training rows are expected to bring."""

    value: float
    low: float
    high: float
    power: float
    """What is wrong falls as the number of rows to minus this."""


def double(
    metric: Metric,
    sizes: Sequence[int],
    scores: Sequence[Sequence[float]],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Doubled | None:
    """The expected score, from scores of the same held-out rows [sizes][rows], the smallest first.

    None for fewer than three sizes, where no row is scored, and for metrics of which nobody knows
    what is perfect (the higher the better, without a limit).
    """
    known = np.asarray(scores, np.float64)
    if metric.higher_is_better and metric.unit not in BEST:
        return None
    if len(sizes) < 3 or not known.shape[1]:
        return None
    rng = np.random.default_rng(seed)
    num_rows = known.shape[1]
    drawn = []
    at_once = max(1, ROWS_AT_ONCE // num_rows)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn.append(known[:, rng.integers(0, num_rows, (count, num_rows))].mean(axis=2))
    means = known.mean(axis=1)[:, None]
    (value,), (power,) = _doubled(metric, sizes, means, num_rows)
    values, _ = _doubled(metric, sizes, np.concatenate(drawn, axis=1), num_rows)
    low, high = percentiles(values, confidence)
    assert low is not None, "all values are numbers"
    assert high is not None, "all values are numbers"
    return Doubled(float(value), low, high, float(power))


def _doubled(
    metric: Metric, sizes: Sequence[int], means: Numbers, num_rows: int
) -> tuple[Numbers, Numbers]:
    """The scores at twice the last size, and the powers, of means [sizes, R]."""
    best = BEST.get(metric.unit, 0.0) if metric.higher_is_better else 0.0
    # Half a row is wrong at least: nothing is ever known to be perfect.
    least = best * 0.5 / num_rows or TINY
    wrong = np.maximum(np.abs(best - means), least)
    x, y = np.log(np.asarray(sizes, np.float64)), np.log(wrong)
    last = (y[-2] - y[-1]) / (x[-1] - x[-2])
    x -= x.mean()
    powers = np.maximum(0.0, np.minimum(-(x @ y) / (x @ x), last))
    after = wrong[-1] * 2.0**-powers
    return (best - after if metric.higher_is_better else after), powers
