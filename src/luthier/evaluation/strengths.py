"""Strengths of several systems from pairs of them: Bradley and Terry's model with ties.

A tie has a parameter of its own (Davidson 1970, JASA 65:317): i beats j with probability
p_i / (p_i + p_j + v sqrt(p_i p_j)). Fitted by maximum likelihood over all votes at once, not vote
by vote; a small penalty keeps a system that won every time finite. Intervals resample rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from luthier.evaluation.values import Outcome

PENALTY = 0.05
"""On the squares of logarithms of strengths."""
RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class PairedVote:
    """A vote: who stood against whom on which row, and how it ended for the first."""

    row: str
    first: str
    second: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Strength:
    """How strong a system is against an average one."""

    system: str
    share: float
    """Probability that it would win against an average system, ties left out."""
    low: float
    high: float
    num_votes: int


def strengths(votes: Sequence[PairedVote], confidence: float, *, seed: int = 0) -> list[Strength]:
    """Each system's strength, the strongest first; nothing without votes."""
    known = [vote for vote in votes if vote.outcome is not None]
    names = sorted({name for vote in known for name in (vote.first, vote.second)})
    if not names:
        return []
    place = {name: i for i, name in enumerate(names)}
    pairs = np.array([[place[vote.first], place[vote.second]] for vote in known])
    outcomes = np.array([vote.outcome for vote in known], dtype=np.float64)
    rows = np.unique([vote.row for vote in known], return_inverse=True)[1]
    found = _shares(_fit(pairs, outcomes, np.ones(len(known)), len(names)))
    rng = np.random.default_rng(seed)
    num_rows = int(rows.max()) + 1
    drawn = []
    for _ in range(RESAMPLES):
        weights = rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows))[rows]
        drawn.append(_shares(_fit(pairs, outcomes, weights.astype(np.float64), len(names))))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.array(drawn), (tail, 1 - tail), axis=0)
    result = [
        Strength(name, float(found[i]), float(low[i]), float(high[i]), int((pairs == i).sum()))
        for i, name in enumerate(names)
    ]
    return sorted(result, key=lambda strength: -strength.share)


def _fit(
    pairs: npt.NDArray[np.int64],
    outcomes: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    num_systems: int,
) -> npt.NDArray[np.float64]:
    """Logarithms of strengths [S], their mean 0, and that of the ties' parameter last."""

    def cost(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logs, tie = parameters[:-1], parameters[-1]
        first, second = logs[pairs[:, 0]], logs[pairs[:, 1]]
        ways = np.stack([first, second, tie + (first + second) / 2])  # won, lost, tied
        shares = scipy.special.softmax(ways, axis=0)
        chosen = np.stack([outcomes == 1, outcomes == 0, outcomes == 0.5]).astype(np.float64)
        loss = -(weights * (chosen * np.log(shares)).sum(0)).sum()
        off = weights * (shares - chosen)
        gradient = np.zeros_like(parameters)
        np.add.at(gradient, pairs[:, 0], off[0] + off[2] / 2)
        np.add.at(gradient, pairs[:, 1], off[1] + off[2] / 2)
        gradient[-1] = off[2].sum()
        return float(loss + PENALTY * (parameters**2).sum()), gradient + 2 * PENALTY * parameters

    found = scipy.optimize.minimize(cost, np.zeros(num_systems + 1), jac=True, method="L-BFGS-B").x
    found[:-1] -= found[:-1].mean()
    return np.asarray(found)


def _shares(parameters: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(scipy.special.expit(parameters[:-1]))
