"""Labelled texts as conversations, for models that write: told the labels, they answer with one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from luthier.data.examples import Chat, Dataset, Example, Labelled, Message
from luthier.data.labels import LabelKind, label_kind, read_label_set

MOST_NAMED = 100
"""Labels that are named in the instructions; of more, examples must tell."""
NONE = "none"
"""The answer for a text without labels."""


def as_conversations(dataset: Dataset) -> Dataset:
    """The dataset with each labelled text as a conversation; others as they are.

    The instructions name the labels of the training rows, or of the held-out ones where there are
    no others; of single labels they are also the choices. Raises DataError for labels that cannot
    be learnt.
    """
    known = [e for e in (dataset.train or dataset.test) if isinstance(e, Labelled)]
    if not known:
        return dataset
    kind = label_kind(known)
    names = read_label_set(known, kind).names
    train, validation, test = (
        tuple(_conversations(rows, kind, names))
        for rows in (dataset.train, dataset.validation, dataset.test)
    )
    return replace(dataset, train=train, validation=validation, test=test)


def _conversations(
    examples: Sequence[Example], kind: LabelKind, names: tuple[str, ...]
) -> Iterator[Example]:
    instructions = Message("system", _instructions(kind, names))
    choices = names if kind == "single" else ()
    for example in examples:
        if not isinstance(example, Labelled):
            yield example
            continue
        question = Message("user", "\n\n".join(example.texts))
        answer = Message("assistant", ", ".join(example.labels) or NONE)
        # A label that only held-out rows have is no choice, and nobody can be right there.
        yield Chat(
            example.id, example.place, (instructions, question, answer),
            slices=example.slices, choices=choices,
        )  # fmt: skip


def _instructions(kind: LabelKind, names: tuple[str, ...]) -> str:
    if kind == "number":
        return "Answer with a number only."
    named = f" of these: {', '.join(names)}" if len(names) <= MOST_NAMED else ""
    if kind == "multi":
        return f"Answer with all labels{named} that fit, parted by commas; if none does, {NONE}."
    return f"Answer with one{named}." if named else "Answer with a label only."
