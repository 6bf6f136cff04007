"""Which of two systems is preferred, from won, lost and tied rows: counts become a rate and a test.

Whoever preferred, a model or people: a row is won (1), lost (0), tied (0.5) or not judged (None).
The win rate counts ties half; its interval is Tango's for (won - lost) / n, which is twice the rate
less one. The test is of signs, ties left out: McNemar's. A rate that length does not explain comes
from a logistic regression on the difference in length, as in AlpacaEval 2 (Dubois et al. 2024,
arXiv 2404.04475), without its terms for models and instructions.
"""

from collections.abc import Sequence

import numpy as np

from luthier.evaluation.statistics import mcnemar, tango, wilson
from luthier.evaluation.values import Estimate, Outcome, Preferred

MIN_DECIDED = 20
"""Decided rows from which on the part of length can be told."""
STEPS = 50
RIDGE = 1e-3
"""On the part of length, which would be infinite where it decides every row."""


def preferred(
    outcomes: Sequence[Outcome], confidence: float, lengths: Sequence[tuple[int, int]] = ()
) -> Preferred:
    """From one outcome a row; `lengths` are those of both answers, the system's own first."""
    won, lost, tied = (sum(outcome == value for outcome in outcomes) for value in (1, 0, 0.5))
    n = won + lost + tied
    limits, signs = tango(won, lost, n, confidence), mcnemar(won, lost)
    decided = wilson(won, won + lost, confidence)
    return Preferred(
        won,
        lost,
        tied,
        len(outcomes) - n,
        Estimate(
            (won + tied / 2) / n if n else None, _half(limits.low), _half(limits.high), n,
            limits.method,
        ),
        Estimate(
            won / (won + lost) if won + lost else None, decided.low, decided.high, won + lost,
            decided.method,
        ),
        signs.p_value,
        "sign test" if signs.test.endswith("exact") else "sign test, mid-p",
        _length_controlled(outcomes, lengths) if lengths else None,
    )  # fmt: skip


def _half(limit: float | None) -> float | None:
    return None if limit is None else (limit + 1) / 2


def _length_controlled(
    outcomes: Sequence[Outcome], lengths: Sequence[tuple[int, int]]
) -> float | None:
    """The intercept of a logistic regression, as a share; Newton's method."""
    pairs = [(o, own - other) for o, (own, other) in zip(outcomes, lengths, strict=True)
             if o in (0, 1)]  # fmt: skip
    if len(pairs) < MIN_DECIDED or len({o for o, _ in pairs}) < 2:
        return None
    won = np.array([o for o, _ in pairs], dtype=np.float64)
    longer = np.array([d for _, d in pairs], dtype=np.float64)
    spread = longer.std()
    features = np.stack([np.ones_like(won), np.tanh(longer / spread) if spread else 0 * won], 1)
    weights, ridge = np.zeros(2), np.diag([0.0, RIDGE * len(won)])
    for _ in range(STEPS):
        shares = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        slope = features.T @ (won - shares) - ridge @ weights
        curve = features.T @ (features * (shares * (1 - shares))[:, None]) + ridge
        curve += 1e-9 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    return float(1 / (1 + np.exp(-np.clip(weights[0], -30, 30))))
