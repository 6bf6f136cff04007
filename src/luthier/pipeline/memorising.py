"""A finished run completes answers of rows it learnt, and of rows it held out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from luthier.data import Example, Text, as_chat, limit_by_hash, read_dataset
from luthier.errors import ConfigError
from luthier.evaluation import Completed, Memorised, weigh_memory
from luthier.models import generate
from luthier.pipeline.datasets import named_rows
from luthier.pipeline.events import Answered, Event
from luthier.pipeline.opening import TunedModel, open_model
from luthier.pipeline.preparing import for_method, measurable
from luthier.recipe import settled
from luthier.runs import Run
from luthier.tokens import Encoded, encode_chat, encode_text

LEAST_REST = 4
"""Tokens of a second half that is worth completing."""
MOST_REST = 64
"""Tokens of a second half that are looked at."""
LEAST_ROWS = 5
"""Of either kind, below which nothing can be said."""


@dataclass(frozen=True, slots=True)
class _Halved:
    place: str
    begun: list[int]
    rest: list[int]


def probe_memory(
    run: Run, most: int = 200, observe: Callable[[Event], None] = lambda event: None
) -> Memorised:
    """Let a run complete the answers of at most so many learnt rows, and as many held-out ones.

    Raises ConfigError for runs that write nothing, and where too few answers are long enough.
    """
    opened = open_model(run)
    dataset = for_method(read_dataset(opened.recipe.data, named_rows(opened.recipe)).dataset,
                         opened.recipe)  # fmt: skip
    parts = []
    for name, rows in (("learnt", dataset.train), ("new", dataset.test)):
        halved = list(_halved(opened, limit_by_hash(measurable(rows), most)))
        if len(halved) < LEAST_ROWS:
            raise ConfigError(
                f"has {len(halved)} {name} rows whose answers have {2 * LEAST_REST} tokens or more",
                where=run.id, accepted=f"{LEAST_ROWS} or more of each",
            )  # fmt: skip
        parts.append(_completed(opened, name, halved, observe))
    learnt, new = parts
    return weigh_memory(learnt, new)


def _halved(opened: TunedModel, examples: Sequence[Example]) -> Iterator[_Halved]:
    longest = settled(opened.recipe.training.max_length)
    for example in examples:
        encoded = _encoded(opened, example, longest)
        start, end = encoded.spans[-1]
        ids = encoded.input_ids
        # What ends an answer is no part of it.
        while end > start and ids[end - 1] in opened.tokenizer.stop_ids:
            end -= 1
        middle = (start + end + 1) // 2
        rest = ids[middle : min(end, middle + MOST_REST)]
        if len(rest) >= LEAST_REST:
            yield _Halved(str(example.place), ids[:middle], rest)


def _encoded(opened: TunedModel, example: Example, longest: int) -> Encoded:
    if isinstance(example, Text):
        return encode_text(opened.tokenizer, example, min(longest, 2 * MOST_REST))[0]
    return encode_chat(opened.tokenizer, as_chat(example), "last")


def _completed(
    opened: TunedModel, name: str, halved: Sequence[_Halved], observe: Callable[[Event], None]
) -> list[Completed]:
    answers = generate(
        opened.model,
        [row.begun for row in halved],
        max_new_tokens=max(len(row.rest) for row in halved),
        stop_ids=opened.tokenizer.stop_ids,
        observe=lambda done: observe(Answered(f"{name} rows", done, len(halved))),
    )
    return [
        Completed(
            row.place, answer.ids[: len(row.rest)] == row.rest,
            opened.tokenizer.decode(row.rest), len(row.rest),
        )
        for row, answer in zip(halved, answers, strict=True)
    ]  # fmt: skip
