"""A finished run is asked what its test rows do not: terms of groups swapped, general questions."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from luthier.data import (
    Example,
    Finding,
    Labelled,
    RowReader,
    conversations,
    read_rows,
    refuse_errors,
)
from luthier.errors import ConfigError
from luthier.evaluation import (
    General,
    Probe,
    compare_swapped,
    general_set,
    swapped,
    weigh_general,
)
from luthier.pipeline.events import Answered, Event
from luthier.pipeline.general import Exam, Observe, start_of
from luthier.pipeline.opened_texts import open_reader, reads_texts
from luthier.pipeline.opening import open_model
from luthier.pipeline.recorded import labels_told
from luthier.pipeline.starting import resolve_start
from luthier.pipeline.work import TUNED
from luthier.recipe import settled
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
    told = labels_told(run)

    def ask(examples: Sequence[Example]) -> list[str]:
        asked = list(conversations(examples, told)) if told else examples
        return [prediction.text for prediction in predictor.predict(asked)]

    return ask


def probe_general(
    run: Run,
    questions: Path | None = None,
    margin: float | None = None,
    observe: Callable[[Event], None] = lambda event: None,
) -> General:
    """Compare the general ability of a finished run's model with that of its start.

    Questions and margin are those of the run's recipe unless given. Raises ConfigError, DataError.
    """
    opened = open_model(run)
    recipe = opened.recipe
    changes = {"general": questions, "general_margin": margin}
    evaluation = recipe.evaluation.model_copy(
        update={name: value for name, value in changes.items() if value is not None}
    )
    start = start_of(recipe, resolve_start(recipe, lambda note: None))
    exam = Exam(
        general_set(evaluation), opened.tokenizer, settled(recipe.training.micro_batch_tokens)
    )

    def told(name: str) -> Observe:
        return lambda done, total: observe(Answered(name, done, total))

    with opened.model.without_adapter() if start is None else nullcontext():
        before = exam.put(start or opened.model, told("before"))
    after = exam.put(opened.model, told("after"))
    moved = exam.divergence(opened.model, start)
    return weigh_general(exam.asked, before, after, evaluation, moved)
