"""What models say of texts while a dataset is looked at: lengths, vectors, labels."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from luthier.errors import ConfigError
from luthier.evaluation import Embed
from luthier.models import default_cache, resolve_source
from luthier.pipeline.opened_texts import open_reader
from luthier.pipeline.opening import find_run
from luthier.pipeline.placing import open_vectors
from luthier.recipe import Model, Runtime
from luthier.tokens import Tokenizer


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


def open_label(wanted: str, workspace: Path) -> Callable[[Sequence[str]], npt.NDArray[np.float64]]:
    """What gives the probability [n] that texts have a label, for RUN/LABEL.

    Raises ConfigError for a run that is no classifier, or has no such label.
    """
    run, _, label = wanted.rpartition("/")
    if not run:
        accepted = "a classifier's run and one of its labels, as RUN/LABEL"
        raise ConfigError(f"is {wanted!r}", where="unwanted", accepted=accepted)
    opened = open_reader(find_run(workspace, run))
    answering = opened.answering
    if answering is None or answering.kind == "number" or answering.reads_pairs:
        accepted = "a run tuned by classify, on labels of single texts"
        raise ConfigError(f"{run} gives texts no labels", where="unwanted", accepted=accepted)
    if label not in answering.names:
        accepted = ", ".join(answering.names)
        raise ConfigError(f"is {label!r}", where=f"the label of {run}", accepted=accepted)
    column = answering.names.index(label)

    def of_label(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        logits = opened.reader.logits([(text, None) for text in texts])
        shares: npt.NDArray[np.float64] = answering.probabilities(logits)[:, column]
        return shares

    return of_label
