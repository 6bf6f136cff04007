"""Labels that the other rows dispute: cross-validated linear models of words (cleanlab)."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from luthier.curation.looking import Seen
from luthier.curation.privacy import excerpt
from luthier.curation.problems import Case, Kind, Problem, problem_of
from luthier.data import Labelled, label_kind, read_label_set
from luthier.errors import DataError

DOUBTFUL = Kind(
    "doubtful-labels", "warning", "{n} with labels that the other rows dispute",
    "wrong labels are learnt like right ones; look at them (about two of three are wrong where "
    "labels were exchanged at random)", "relabel",
)  # fmt: skip
MAX_ROWS = 100_000
"""Labelled rows that are looked at; beyond, linear models take many minutes."""
SEED = 0


class DoubtCheck:
    """Doubts labels by the words of their texts."""

    name = "doubtful-labels"

    def __init__(self) -> None:
        self._rows: list[Seen] = []
        self.suggested: dict[int, str] = {}
        """Position of each doubtful row -> the label that the others make likeliest."""

    def see(self, rows: Sequence[Seen]) -> None:
        """Remember rows with one label."""
        room = MAX_ROWS - len(self._rows)
        self._rows += [
            row
            for row in rows[: max(0, room)]
            if isinstance(row.example, Labelled) and row.example.form != "number"
        ]

    def problems(self) -> Iterable[Problem]:
        """Rows whose labels are disputed, the most doubtful first."""
        examples = [
            replace(row.example, id=str(row.position))
            for row in self._rows
            if isinstance(row.example, Labelled)
        ]
        if not examples or label_kind(examples) != "single":
            return
        from luthier.evaluation import find_suspects

        try:
            labels = read_label_set(examples, "single")
        except DataError:
            return  # too few rows of a label, or too many labels: the check of labels says so
        suspects = find_suspects(examples, None, labels, seed=SEED)
        rows = {row.position: row for row in self._rows}
        cases = []
        for suspect in suspects:
            row = rows[int(suspect.example_id)]
            self.suggested[row.position] = suspect.suggested
            detail = f"{suspect.label!r}; the others say {suspect.suggested!r}"
            cases.append(Case(row.position, row.place, excerpt(row.question), detail))
        if cases:
            yield problem_of(DOUBTFUL, [case.position for case in cases], cases)
