"""What a model can do besides its task, before and after it was tuned: is it kept?

Questions with choices are not answered but weighed: how likely is each choice after its question,
and what share of that likelihood has the right one. That share moves with every change of a model,
where the number of right answers needs many questions to show one. Ability counts as kept when the
whole interval of the difference lies above -margin: a test of non-inferiority, in which fewer than
20 questions cannot pass. Texts are weighed too: their perplexity, and how far the model has moved
on them, say how much has changed, not that it is worse. Knows no models; their likelihoods come in.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from luthier.data import Finding, Place, Row, hash_bytes, read_rows, refuse_errors
from luthier.errors import DataError
from luthier.evaluation.statistics import mean_interval
from luthier.evaluation.values import Change, Estimate, General
from luthier.recipe import Evaluation

FIELDS = "question, choices and answer, or text; and subject"


@dataclass(frozen=True, slots=True)
class Question:
    """Something asked, and the answers to choose from."""

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Which of the choices is right, from 0."""
    place: Place


@dataclass(frozen=True, slots=True)
class Passage:
    """A text to be read."""

    subject: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class GeneralSet:
    """What is asked before and after."""

    questions: tuple[Question, ...]
    passages: tuple[Passage, ...]
    sha256: str
    """Of the file."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What one model makes of a set."""

    likelihoods: tuple[tuple[float, ...], ...]
    """Of each question's choices, in nats; none of a question that is too long for the model."""
    losses: tuple[tuple[float, int], ...]
    """Of each passage: the sum of its losses in nats, and its tokens."""


def general_set(evaluation: Evaluation) -> GeneralSet:
    """The questions and passages that a recipe names: those of a file, or the built-in ones.

    Raises DataError listing every row that is neither, and where there is no question.
    """
    if isinstance(evaluation.general, Path):
        return _read(evaluation.general)
    built_in = resources.files("luthier.evaluation").joinpath("built_in", "general.jsonl")
    with resources.as_file(built_in) as place:
        return _read(place)


def _read(file: Path) -> GeneralSet:
    findings: list[Finding] = []
    items = [_item(row, findings) for row in read_rows(file, findings.append)]
    refuse_errors(findings)
    questions = tuple(item for item in items if isinstance(item, Question))
    if not questions:
        accepted = "rows with question, choices and answer"
        raise DataError("holds no question", where=str(file), accepted=accepted)
    passages = tuple(item for item in items if isinstance(item, Passage))
    return GeneralSet(questions, passages, hash_bytes(file))


def _item(row: Row, findings: list[Finding]) -> Question | Passage | None:
    fields = row.fields
    subject = fields.get("subject", "all")
    if not isinstance(subject, str) or not subject.strip():
        findings.append(Finding(row.place, "general", "subject", f"is {subject!r}", "a name"))
    elif isinstance(fields.get("text"), str) and fields["text"].strip():
        return Passage(subject, fields["text"], row.place)
    else:
        question, choices, answer = (fields.get(n) for n in ("question", "choices", "answer"))
        found = _wrong(question, choices, answer)
        if not found:
            assert isinstance(choices, list), "as was checked"
            right = choices.index(answer)
            return Question(subject, str(question), tuple(choices), right, row.place)
        findings.append(Finding(row.place, "general", *found))
    return None


def _wrong(question: object, choices: object, answer: object) -> tuple[str, str, str] | None:
    """What is wrong with a question: field, what was found, what is accepted."""
    if not isinstance(question, str) or not question.strip():
        return "", "has no text and no question", FIELDS
    if not isinstance(choices, list) or len(choices) < 2:
        return "choices", f"is {choices!r}", "a list of two or more"
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        return "choices", "holds what is no text", "texts"
    if len(set(choices)) < len(choices):
        return "choices", "names one twice", "choices that differ"
    if answer not in choices:
        return "answer", f"is {answer!r}", "one of the choices, word for word"
    return None


def weigh_general(
    asked: GeneralSet,
    before: Knowledge,
    after: Knowledge,
    evaluation: Evaluation,
    divergence: float | None = None,
) -> General:
    """Compare what a model makes of the same questions before and after."""
    places = [i for i, own in enumerate(before.likelihoods) if own and after.likelihoods[i]]
    shares = [
        [_share(known.likelihoods[i], asked.questions[i].answer) for i in places]
        for known in (before, after)
    ]
    rng = np.random.default_rng(0)
    confidence, resamples = evaluation.confidence, evaluation.resamples
    first, second = (_mean(own, confidence, resamples) for own in shares)
    changes = [b - a for a, b in zip(*shares, strict=True)]
    limits = mean_interval(changes, confidence, resamples, rng)
    return General(
        first, second, sum(changes) / len(changes) if changes else 0.0, limits.low, limits.high,
        evaluation.general_margin, confidence, tuple(_picked(asked, before, after, places)),
        tuple(_perplexities(asked, before, after)), divergence,
    )  # fmt: skip


def _share(likelihoods: Sequence[float], answer: int) -> float:
    """Of the likelihood of all choices, that of the right one."""
    best = max(likelihoods)
    weights = [math.exp(each - best) for each in likelihoods]
    return weights[answer] / math.fsum(weights)


def _mean(shares: Sequence[float], confidence: float, resamples: int) -> Estimate:
    if not shares:
        return Estimate(None, None, None, 0, "no questions")
    limits = mean_interval(shares, confidence, resamples, np.random.default_rng(0))
    low = None if limits.low is None else max(limits.low, 0.0)
    high = None if limits.high is None else min(limits.high, 1.0)
    return Estimate(sum(shares) / len(shares), low, high, len(shares), limits.method)


def _picked(
    asked: GeneralSet, before: Knowledge, after: Knowledge, places: Sequence[int]
) -> Iterator[Change]:
    for subject in dict.fromkeys(asked.questions[i].subject for i in places):
        own = [i for i in places if asked.questions[i].subject == subject]
        right = [
            sum(_picks(known.likelihoods[i]) == asked.questions[i].answer for i in own)
            for known in (before, after)
        ]
        yield Change(subject, len(own), right[0] / len(own), right[1] / len(own))


def _picks(likelihoods: Sequence[float]) -> int:
    return max(range(len(likelihoods)), key=likelihoods.__getitem__)


def _perplexities(asked: GeneralSet, before: Knowledge, after: Knowledge) -> Iterator[Change]:
    for subject in dict.fromkeys(passage.subject for passage in asked.passages):
        own = [i for i, passage in enumerate(asked.passages) if passage.subject == subject]
        tokens = sum(before.losses[i][1] for i in own)
        if tokens:
            means = [math.fsum(k.losses[i][0] for i in own) / tokens for k in (before, after)]
            # Beyond e^700 there are no numbers.
            first, second = (math.exp(min(mean, 700.0)) for mean in means)
            yield Change(subject, len(own), first, second)
