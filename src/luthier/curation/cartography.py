"""How a run learnt each of its rows: easily, with doubt, or hardly (dataset cartography).

Each row was seen once in every pass, and its loss noted before the step it took part in. What a
model thinks of the answer is exp(-loss): of labels their probability, of texts the geometric mean
of their tokens' probabilities. Its mean over the passes is the confidence, its deviation the
variability (Swayamdipta et al. 2020).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from luthier.errors import ConfigError
from luthier.runs import UNKNOWN, RowLosses, Run

Learning = Literal["easy", "ambiguous", "hard"]
AMBIGUOUS_SHARE = 1 / 3
"""Of all rows: those of the highest variability, as its authors chose it."""
HARD_TIMES = 0.5
"""Of the median confidence, below which a row is hard: its authors' lowest third would hold easy
rows where nearly all are easy. Of 56 labels that were exchanged among 895 intents, 48 were among
the 50 rows of least confidence, after four passes."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Learnt:
    """How a row was learnt."""

    loss: float
    """Mean over the passes."""
    confidence: float
    """Mean of exp(-loss), from 0 to 1."""
    variability: float
    """Its standard deviation; 0 where there was one pass."""
    num_passes: int
    learning: Learning
    """Hard are rows of less than half the median confidence; of the others those of the highest
    variability are ambiguous."""


def learnt_in(run: Run) -> dict[str, Learnt]:
    """How each row was learnt in a run, by `example_key`; rows that say the same are one.

    Raises ConfigError when the run noted no losses.
    """
    losses = RowLosses(run.folder)
    passes: dict[str, list[float]] = defaultdict(list)
    keys = losses.keys()
    for rows, lost in losses.steps() if keys else ():
        for row, loss in zip(rows, lost, strict=True):
            passes[keys[row]].append(loss)
    passes.pop(UNKNOWN, None)
    if not passes:
        raise ConfigError(
            "noted no losses of rows", where=f"run {run.id}",
            advice="kernels that do not say them are chosen on a GPU where they are faster, and "
            "runs that had not begun to train have none",
        )  # fmt: skip
    return _regions(list(passes), list(passes.values()))


def _regions(keys: Sequence[str], passes: Sequence[Sequence[float]]) -> dict[str, Learnt]:
    losses = np.array([np.mean(own) for own in passes])
    sure = [np.exp(-np.asarray(own)) for own in passes]
    confidence = np.array([own.mean() for own in sure])
    variability = np.array([own.std() for own in sure])
    learning = np.full(len(keys), "easy", dtype=object)
    most = np.argsort(-variability, kind="stable")[: int(len(keys) * AMBIGUOUS_SHARE)]
    learning[most[variability[most] > 0]] = "ambiguous"
    learning[confidence < HARD_TIMES * np.median(confidence)] = "hard"
    numbers = zip(losses.tolist(), confidence.tolist(), variability.tolist(), strict=True)
    return {
        key: Learnt(*measured, len(own), region)
        for key, measured, own, region in zip(keys, numbers, passes, learning, strict=True)
    }
