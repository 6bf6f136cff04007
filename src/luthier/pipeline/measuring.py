"""What models say of texts while a dataset is looked at: lengths, vectors, labels."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from luthier.errors import ConfigError
from luthier.evaluation import Embed
from luthier.models import default_cache, resolve_source
from luthier.pipeline.asking import Answering
from luthier.pipeline.opened_texts import TunedReader, open_reader, reads_texts
from luthier.pipeline.opening import find_run
from luthier.pipeline.placing import open_vectors
from luthier.recipe import Model, Runtime
from luthier.runs import Run
from luthier.tokens import Tokenizer

OfLabel = Callable[[Sequence[str]], npt.NDArray[np.float64]]
"""Probability [n] that texts have a label."""


def open_measure(
    source: str, observe: Callable[[str], None] = lambda note: None, cache: Path | None = None
) -> tuple[Callable[[Sequence[str]], list[int]], int | None]:
    """What counts the tokens of texts, and how many the model takes; no weights are loaded.

    Raises ModelError, TemplateError.
    """
    folder = resolve_source(Model(source=source), cache or default_cache(), observe)
    tokenizer = Tokenizer.load(folder.path, writes=False)

    def measure(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in encoded]

    return measure, tokenizer.context_length


def open_embed(source: str) -> Embed:
    """What makes vectors [n, D] of texts with a model of texts. Raises ConfigError, ModelError."""
    return open_vectors(source, Runtime())


def open_label(wanted: str, workspace: Path) -> OfLabel:
    """What gives the probability [n] that texts have a label, for RUN/LABEL.

    A run may be named by its folder, a label may hold slashes. Raises ConfigError for a run that is
    no classifier, or has no such label.
    """
    named, parted, label = wanted.partition("/")
    if Path(wanted.rpartition("/")[0], "run.json").is_file():
        named, parted, label = wanted.rpartition("/")
    if not parted:
        accepted = "a classifier's run and one of its labels, as RUN/LABEL"
        raise ConfigError(f"is {wanted!r}", where="unwanted", accepted=accepted)
    run = find_run(workspace, named)
    check_label(run, label, "unwanted")
    return of_label(open_reader(run), label)


def check_label(run: Run, label: str, where: str) -> None:
    """Raise ConfigError unless a run is a classifier with this label; no weights are loaded."""
    answering = Answering.read(run.path("model")) if reads_texts(run) else None
    if answering is None or answering.kind == "number" or answering.reads_pairs:
        accepted = "a finished run tuned by classify, on labels of single texts"
        raise ConfigError(f"{run.id} gives texts no labels", where=where, accepted=accepted)
    if label not in answering.names:
        accepted = ", ".join(answering.names)
        raise ConfigError(f"{label!r} is no label of {run.id}", where=where, accepted=accepted)


def of_label(opened: TunedReader, label: str) -> OfLabel:
    """What gives the probability [n] that texts have a label."""
    answering = opened.answering
    assert answering is not None, "checked before"
    column = answering.names.index(label)

    def ask(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        logits = opened.reader.logits([(text, None) for text in texts])
        shares: npt.NDArray[np.float64] = answering.probabilities(logits)[:, column]
        return shares

    return ask
