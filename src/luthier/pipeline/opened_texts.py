"""A run's tuned model of texts, opened again: to label texts, to embed them, to be judged."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luthier.data import Row
from luthier.data.labelled import PAIR_FIELDS, TEXT_FIELDS
from luthier.data.retrieval import with_title
from luthier.errors import ConfigError, DataError
from luthier.evaluation import Prediction
from luthier.models import choose_device, load_encoder, peak_memory, precision
from luthier.pipeline.asking import Answering, Numbers, Reader, in_parts
from luthier.pipeline.encoding import ReadEncoding, text_limit
from luthier.pipeline.recorded import resolved_recipe
from luthier.recipe import TEXT_METHODS, Classify, Recipe, settled
from luthier.runs import Run

AT_ONCE = 4096
"""Texts that are held at once while a file of any size is answered."""


@dataclass(frozen=True)
class TunedReader:
    """A finished run's model of texts, ready to be asked."""

    run: Run
    recipe: Recipe
    reader: Reader
    answering: Answering | None
    """None for a model of vectors."""

    def predict(self, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
        """Labels with probabilities, or numbers, of texts (or of texts read two together).

        Raises ConfigError for a model of vectors; `embed` is for those.
        """
        if self.answering is None:
            raise ConfigError(
                "gives vectors, not labels", where=self.run.id, advice="call embed instead"
            )
        asked = _checked(texts)
        for number, (_, second) in enumerate(asked, 1):
            check_pairing(self.answering, second, f"text {number}")
        if not asked:
            return []
        logits = self.reader.logits(asked)
        return self.answering.predictions([str(i) for i in range(len(texts))], logits)

    def embed(self, texts: Sequence[str], *, as_passages: bool = False) -> Numbers:
        """Vectors [n, D] float32 of texts, asked with, or to be found."""
        plain = [text for text, _ in _checked(texts)]
        return self.reader.vectors(plain, prompt=self.reader.prompts[as_passages])

    def stream(
        self, texts: Iterable[tuple[str, str | None]], *, as_passages: bool = False
    ) -> Iterator[Prediction | Numbers]:
        """Answers or vectors, one for each of any number of texts; few are held at once."""
        number = 0
        for some in in_parts(texts, AT_ONCE):
            if self.answering is None:
                yield from self.embed([text for text, _ in some], as_passages=as_passages)
            else:
                ids = [str(number + i) for i in range(len(some))]
                yield from self.answering.predictions(ids, self.reader.logits(some))
            number += len(some)

    def peak_bytes(self) -> int:
        """Peak memory of this process so far, or of the device."""
        return peak_memory()


def _checked(texts: Sequence[str | tuple[str, str]]) -> list[tuple[str, str | None]]:
    """Texts to be asked with. Raises DataError for what is none."""
    if isinstance(texts, str):
        raise DataError("is one text", where="texts", accepted="a list of texts, such as [text]")
    found: list[tuple[str, str | None]] = []
    for number, text in enumerate(texts, 1):
        parts = tuple(text) if isinstance(text, tuple | list) else (text,)
        if not 1 <= len(parts) <= 2 or not all(isinstance(p, str) and p.strip() for p in parts):
            said = f"is {text!r}"
            raise DataError(
                said, where=f"text {number}", accepted="a text that is not empty, or two"
            )
        found.append((parts[0], parts[1] if len(parts) > 1 else None))
    return found


def check_pairing(answering: Answering, second: str | None, where: str) -> None:
    """Raise DataError when what reads two texts together is given one, or the other way round."""
    if answering.reads_pairs == (second is not None):
        return
    one, two = "one text", "two texts that are read together"
    found, accepted = (one, two) if answering.reads_pairs else (two, one)
    raise DataError(f"is {found}", where=where, accepted=f"{accepted}, as the run learnt from")


def reads_texts(run: Run) -> bool:
    """Whether a run's model reads texts, rather than writes."""
    return resolved_recipe(run).method.kind in TEXT_METHODS


def open_reader(run: Run) -> TunedReader:
    """Load what a run of a text method made. Raises ConfigError when it has made nothing yet."""
    recipe, folder = resolved_recipe(run), run.path("model")
    if recipe.method.kind not in TEXT_METHODS:
        raise ConfigError(
            f"was tuned by {recipe.method.kind} and writes answers",
            where=run.id,
            accepted="a run with method: classify or embed",
            advice=f"talk to it with: luthier chat {run.id}",
        )
    if not folder.is_dir():
        raise ConfigError(
            f"is {run.record.status} and has no tuned weights yet",
            where=run.id,
            advice="run luthier train with the same recipe again; it goes on where it stopped",
        )
    answering, encoding = Answering.read(folder), ReadEncoding.open(folder, recipe)
    is_own = isinstance(recipe.method, Classify) and recipe.method.head == "own"
    model = load_encoder(
        folder,
        dtype=precision(settled(recipe.runtime.dtype)),
        device=choose_device(settled(recipe.runtime.device), settled(recipe.runtime.threads)),
        answers=answering.num_outputs if answering else 0,
        head="own" if is_own else "pooled",
    )
    limit = text_limit(recipe, encoding.limit)
    budget = settled(recipe.training.micro_batch_tokens)
    reader = Reader(model, encoding.tokenizer, limit, budget, encoding.prompts)
    return TunedReader(run, recipe, reader, answering)


Wanted = Literal["answer", "query", "passage"]
"""What is wanted of a row's text: its label, or its vector to search with, or to be found."""
LAYOUTS: dict[Wanted, tuple[tuple[str, ...], ...]] = {
    "answer": tuple(sorted(TEXT_FIELDS, key=len, reverse=True)),
    "query": (*((first,) for first, _ in PAIR_FIELDS), ("text",)),
    "passage": (*((second,) for _, second in PAIR_FIELDS), ("text",)),
}
"""Names of the text, or of both that are read together, the first that are there."""


def text_of(row: Row, wanted: Wanted) -> tuple[str, str | None]:
    """The text of a row, or both; a passage's title stands before its text.

    Raises DataError when it has none.
    """
    fields = row.fields
    for names in LAYOUTS[wanted]:
        if all(isinstance(fields.get(name), str) and fields[name].strip() for name in names):
            found = [str(fields[name]) for name in names]
            first = with_title(row, found[0]) if wanted == "passage" else found[0]
            return first, found[1] if len(found) > 1 else None
    for name in (name for names in LAYOUTS[wanted] for name in names if name in fields):
        value = fields[name]
        if not isinstance(value, str) or not value.strip():
            said = "empty" if isinstance(value, str) else json.dumps(value)
            raise DataError(f"{name} is {said}", where=str(row.place), accepted="text")
    known = dict.fromkeys(" + ".join(names) for names in LAYOUTS[wanted])
    raise DataError(
        f"has the fields {', '.join(fields) or 'none'}",
        where=str(row.place),
        accepted=f"text in one of: {', '.join(known)}",
    )


def as_row(prediction: Prediction, names: Sequence[str]) -> dict[str, Any]:
    """A prediction as a line of JSON."""
    if prediction.value is not None:
        return {"value": prediction.value}
    shares = dict(zip(names, (round(x, 6) for x in prediction.probabilities), strict=True))
    return {"labels": list(prediction.labels), "probabilities": shares}


def write_suspects(run: Run, target: Path) -> int:
    """Write a run's doubtful training rows as JSONL; how many there are."""
    report = run.path("report.json")
    if not report.is_file():
        raise ConfigError(
            f"is {run.record.status} and has no report yet",
            where=run.id,
            advice="run luthier train with the same recipe again; it goes on where it stopped",
        )
    details = json.loads(report.read_text("utf-8")).get("details") or {}
    found = details.get("suspects", [])
    if not details.get("classes"):
        raise ConfigError(
            "has no labels that could be doubtful", where=run.id, accepted="a classifier's run"
        )
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in found]
    target.write_text("".join(lines), encoding="utf-8")
    return len(found)
