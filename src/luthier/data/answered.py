"""Labelled texts as conversations, for models that write: told the labels, they answer with one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from luthier.data.examples import Chat, Dataset, Example, Labelled, Message
from luthier.data.labels import LabelKind, LabelSet, label_kind, read_label_set

MOST_NAMED = 100
"""Labels that are named in the instructions; of more, examples must tell."""
NONE = "none"
"""The answer for a text without labels."""


def told_labels(dataset: Dataset) -> LabelSet | None:
    """The labels that models are told: those of the training rows, or else of the held-out ones.

    None where no row is labelled. Raises DataError for labels that cannot be learnt.
    """
    known = [e for e in (dataset.train or dataset.test) if isinstance(e, Labelled)]
    return read_label_set(known, label_kind(known)) if known else None


def as_conversations(dataset: Dataset, labels: LabelSet | None = None) -> Dataset:
    """The dataset with each labelled text as a conversation; others as they are.

    The instructions name the `labels`, by default the dataset's own; single ones are also the
    choices. Raises DataError for labels that cannot be learnt.
    """
    labels = labels or told_labels(dataset)
    if labels is None:
        return dataset
    train, validation, test = (
        tuple(conversations(rows, labels))
        for rows in (dataset.train, dataset.validation, dataset.test)
    )
    return replace(dataset, train=train, validation=validation, test=test)


def conversations(examples: Sequence[Example], labels: LabelSet) -> Iterator[Example]:
    """Labelled texts as conversations, others as they are."""
    kind, names = labels.kind, labels.names
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
