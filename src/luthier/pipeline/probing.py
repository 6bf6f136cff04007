"""A finished run is asked its test rows, or others, twice: with the terms of groups swapped."""

from collections.abc import Callable, Sequence
from pathlib import Path

from luthier.data import Example, Finding, Labelled, RowReader, read_rows, refuse_errors
from luthier.errors import ConfigError
from luthier.evaluation import Probe, compare_swapped, swapped
from luthier.pipeline.events import Event
from luthier.pipeline.opened_texts import open_reader, reads_texts
from luthier.pipeline.opening import open_model
from luthier.pipeline.work import TUNED
from luthier.runs import Run


def probe_run(
    run: Run,
    rows: Path,
    swaps: dict[str, str],
    observe: Callable[[Event], None] = lambda event: None,
) -> Probe:
    """Ask a run the rows of a file that name a term, as they are and swapped.

    Raises ConfigError where no row names one, or the run gives vectors; DataError for rows that are
    none.
    """
    findings: list[Finding] = []
    reader = RowReader(findings.append)
    read = [reader.example(row) for row in read_rows(rows, findings.append)]
    refuse_errors(findings)
    pairs = [(e, other) for e in read if e is not None and (other := swapped(e, swaps))]
    asked, others = [one for one, _ in pairs], [other for _, other in pairs]
    if not pairs:
        return compare_swapped([], [], [])
    ask = _labels(run) if reads_texts(run) else _texts(run, observe)
    both = ask([*asked, *others])
    answers = list(zip(both[: len(asked)], both[len(asked) :], strict=True))
    return compare_swapped(asked, others, answers)


Ask = Callable[[Sequence[Example]], list[str]]


def _labels(run: Run) -> Ask:
    opened = open_reader(run)

    def ask(examples: Sequence[Example]) -> list[str]:
        texts = [e.texts for e in examples if isinstance(e, Labelled)]
        if len(texts) < len(examples):
            raise ConfigError("reads labelled texts", where=run.id, accepted="such rows")
        given = [text[0] if len(text) == 1 else (text[0], text[1]) for text in texts]
        found = opened.predict(given)
        return [", ".join(p.labels) if p.value is None else f"{p.value:.3g}" for p in found]

    return ask


def _texts(run: Run, observe: Callable[[Event], None]) -> Ask:
    predictor = open_model(run).predictor(TUNED, observe=observe)
    return lambda examples: [prediction.text for prediction in predictor.predict(examples)]
