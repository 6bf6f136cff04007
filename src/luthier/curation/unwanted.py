"""Texts that a classifier calls toxic, or whatever else nobody wants learnt."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from luthier.curation.looking import Seen
from luthier.curation.problems import Gathered, Kind, Problem

UNWANTED = Kind(
    "unwanted-content", "note", "{n} that the classifier gives the label to be looked for",
    "they may be meant, as in a filter's examples; a model that reads them as answers writes them; "
    "the classifier may be wrong",
)  # fmt: skip
LEAST = 0.5
"""Probability from which a text has the label."""

OfLabel = Callable[[Sequence[str]], npt.NDArray[np.float64]]
"""Probability [n] that texts have a label."""


class UnwantedCheck:
    """Finds rows whose question or answer a classifier gives a label."""

    name = "unwanted-content"

    def __init__(self, of_label: OfLabel) -> None:
        self._of_label, self._found = of_label, Gathered(UNWANTED)

    def see(self, rows: Sequence[Seen]) -> None:
        """Ask the classifier about all questions and written answers."""
        asked = [(row, text) for row in rows for text in _said(row)]
        if not asked:
            return
        shares = self._of_label([text for _, text in asked])
        known: set[int] = set()
        for (row, text), share in zip(asked, shares.tolist(), strict=True):
            if share >= LEAST and row.position not in known:
                known.add(row.position)
                self._found.add(row, text, f"by a probability of {100 * share:.0f} %")

    def problems(self) -> Iterable[Problem]:
        """Rows with such texts."""
        return self._found.problem()


def _said(row: Seen) -> list[str]:
    """Labels are no texts."""
    texts = [row.question, row.answer] if row.is_written else [row.question]
    return [text for text in texts if text.strip()]
