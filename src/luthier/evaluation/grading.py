"""OpenAI's graders judge answers: each gives a score to all answers of a system at once.

What a grader needs from outside (a model to ask, vectors of texts, a function of the user's own)
is handed in as `Means`. An answer that a grader cannot judge has no score and a reason; nothing
that a model wrote, and nothing that a grader says, ends the work.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from luthier.data import Example, Message
from luthier.errors import ConfigError
from luthier.evaluation.formulas import FormulaError, calculate, check_formula, names_of
from luthier.evaluation.json_answers import last_object
from luthier.evaluation.likeness import LIKENESS
from luthier.evaluation.sandbox import Limits, run_program
from luthier.evaluation.searching import Embed, normalized
from luthier.evaluation.templates import MissingError, fill
from luthier.evaluation.values import Metric, Prediction
from luthier.recipe import (
    ClassifierGrader,
    FunctionGrader,
    Grader,
    Judging,
    LabelModel,
    Multi,
    PythonGrader,
    SamplingParams,
    ScoreModel,
    StringCheck,
    TextSimilarity,
    Turn,
)

LIMITS = Limits(seconds=120, memory=2 << 30)
"""Of a program that grades, as the interface has them."""
AT_ONCE = 64
"""Answers that one process of a program grades."""
GRADES_ALL = """

def _grade_all(rows):
    grades = []
    for sample, item in rows:
        try:
            grades.append([float(grade(sample, item)), ""])
        except Exception as error:
            grades.append([None, f"{type(error).__name__}: {error}"[:500]])
    return grades
"""
FORM_OF_SCORE = (
    "Answer with one JSON object and nothing else: "
    '{{"steps": ["your reasoning, a sentence a step"], "result": NUMBER}}, where NUMBER is from '
    "{low:g} to {high:g}."
)
FORM_OF_LABEL = (
    "Answer with one JSON object and nothing else: "
    '{{"steps": ["your reasoning, a sentence a step"], "result": LABEL}}, where LABEL is one of '
    "{labels}."
)


Fault = Literal["", "variable", "program", "reply", "server", "formula", "other"]
"""A template names what is not there; the program, what the model said, the model itself, or the
formula failed."""


@dataclass(frozen=True, slots=True)
class Grade:
    """A score, or why there is none."""

    score: float | None
    why: str = ""
    fault: Fault = ""
    """Whose, where there is no score."""


NOTHING = Grade(None, "the program gave nothing that can be read", "program")


@dataclass(frozen=True, slots=True)
class Said:
    """What a model that judges answered, or why it did not."""

    text: str
    error: str = ""


class Asks(Protocol):
    """Asks a model many questions."""

    def __call__(
        self, model: str, questions: Sequence[Sequence[Message]], how: SamplingParams
    ) -> list[Said]:
        """The answers, in order."""
        ...


Item = dict[str, Any]
Sample = dict[str, Any]
OwnFunction = Callable[[Sample, Item], Any]


def _cannot_ask(
    model: str, questions: Sequence[Sequence[Message]], how: SamplingParams
) -> list[Said]:
    raise ConfigError(f"{model} cannot be asked here", where="evaluation.graders")


def _cannot_embed(texts: Sequence[str]) -> Any:
    raise ConfigError(
        "likeness by vectors is asked for, and no model that makes them is named",
        where="evaluation.embedder",
        accepted="a model of sentence vectors",
    )


def _cannot_classify(run: str, label: str) -> Embed:
    raise ConfigError(f"{run} cannot be asked here", where="evaluation.graders")


def _cannot_load(path: str) -> OwnFunction:
    raise ConfigError(f"{path} cannot be called here", where="evaluation.graders")


@dataclass(frozen=True)
class Means:
    """What graders need from outside."""

    ask: Asks = _cannot_ask
    embed: Embed = _cannot_embed
    load: Callable[[str], OwnFunction] = _cannot_load
    """Path such as package.module:function -> the function, raising `OwnError` only."""
    classify: Callable[[str, str], Embed] = _cannot_classify
    """A classifier's run and a label -> what gives the probability [n] that texts have it."""
    items: Mapping[str, Item] | None = None
    """Place of a row -> its fields as they stand in the file."""

    def item(self, example: Example) -> Item:
        """What templates and programs find under `item`."""
        known = (self.items or {}).get(str(example.place), dict(example.slices))
        return {
            "reference_answer": example.target.content,
            "messages": [{"role": m.role, "content": m.content} for m in example.prompt],
            **known,
        }


class OwnError(Exception):
    """A function of the user's own raised; says what."""


@dataclass(frozen=True)
class GradedScorer:
    """Judges by a grader."""

    metric: Metric
    grader: Grader
    means: Means

    def score_all(
        self, predictions: Sequence[Prediction], examples: Sequence[Example]
    ) -> list[Grade]:
        """A grade for each answer, in order."""
        rows = [
            {"sample": sample_of(prediction), "item": self.means.item(example)}
            for prediction, example in zip(predictions, examples, strict=True)
        ]
        return grade(self.grader, rows, self.means)


def build_graders(evaluation: Judging, means: Means) -> tuple[GradedScorer, ...]:
    """The scorers that graders are. Raises ConfigError for one that can never work."""
    return tuple(_graded(grader, means) for grader in evaluation.graders)


def _graded(grader: Grader, means: Means) -> GradedScorer:
    if isinstance(grader, Multi):
        check_multi(grader)
    if isinstance(grader, StringCheck | LabelModel) or grader.pass_threshold is not None:
        metric = Metric(grader.name, grader.name, "pass_fail", True, "share")
    elif _is_share(grader):
        metric = Metric(grader.name, grader.name, "number", True, "share")
    else:
        metric = Metric(grader.name, grader.name, "number", True, "plain")
    return GradedScorer(metric, grader, means)


def _is_share(grader: Grader) -> bool:
    if isinstance(grader, ScoreModel):
        return grader.range == (0, 1)
    return isinstance(grader, TextSimilarity | ClassifierGrader)


def sample_of(prediction: Prediction) -> Sample:
    """What templates and programs find under `sample`."""
    tools = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in prediction.tool_calls
    ]
    sample: Sample = {"output_text": prediction.text, "output_tools": tools}
    with suppress(ValueError, RecursionError):
        sample["output_json"] = json.loads(prediction.text)
    return sample


Rows = Sequence[Mapping[str, Any]]
"""Of each row {"sample": ..., "item": ...}."""


def grade(grader: Grader, rows: Rows, means: Means) -> list[Grade]:
    """A grade for each row, in order."""
    match grader:
        case StringCheck():
            grades = _by_texts(grader, rows, lambda a, b: float(_checks(grader.operation, a, b)))
        case TextSimilarity(evaluation_metric="cosine"):
            grades = _by_vectors(grader, rows, means.embed)
        case TextSimilarity():
            grades = _by_texts(grader, rows, LIKENESS[grader.evaluation_metric])
        case PythonGrader():
            grades = _by_program(grader.source, rows)
        case FunctionGrader():
            grades = _by_function(means.load(grader.path), rows)
        case ClassifierGrader():
            grades = _by_classifier(grader, rows, means)
        case ScoreModel():
            low, high = grader.range
            form = FORM_OF_SCORE.format(low=low, high=high)
            grades = _by_model(grader, rows, means, form, lambda said: _number(said, low, high))
        case LabelModel():
            form = FORM_OF_LABEL.format(labels=json.dumps(list(grader.labels)))
            grades = _by_model(grader, rows, means, form, lambda said: _passes(said, grader))
        case Multi():
            grades = _by_formula(grader, rows, means)
    grades = [_finite(one) for one in grades]
    limit = grader.pass_threshold
    if limit is None:
        return grades
    return [one if one.score is None else Grade(float(one.score >= limit)) for one in grades]


def _finite(one: Grade) -> Grade:
    if one.score is None or math.isfinite(one.score):
        return one
    return Grade(None, f"the score is {one.score}", "other")


def _checks(operation: str, text: str, reference: str) -> bool:
    match operation:
        case "eq":
            return text == reference
        case "ne":
            return text != reference
        case "like":
            return reference in text
        case _:
            return reference.casefold() in text.casefold()


def _by_texts(
    grader: StringCheck | TextSimilarity, rows: Rows, judge: Callable[[str, str], float]
) -> list[Grade]:
    return [_missing(why) if why else Grade(judge(*texts)) for texts, why in _filled(grader, rows)]


def _filled(grader: StringCheck | TextSimilarity, rows: Rows) -> list[tuple[tuple[str, str], str]]:
    """Text and reference of each row, and what their templates miss."""
    pairs = [(_text_of(grader.input, row), _text_of(grader.reference, row)) for row in rows]
    return [((a, b), why or why_not) for (a, why), (b, why_not) in pairs]


def _by_vectors(grader: TextSimilarity, rows: Rows, embed: Embed) -> list[Grade]:
    filled = _filled(grader, rows)
    first, second = (normalized(embed([texts[i] for texts, _ in filled])) for i in (0, 1))
    cosines = np.sum(first * second, axis=1)
    return [
        _missing(why) if why else Grade(float(cosine))
        for cosine, (_, why) in zip(cosines, filled, strict=True)
    ]


def _by_program(source: str, rows: Rows) -> list[Grade]:
    """Several rows a process; where that fails, each in one of its own."""
    grades = []
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        found = _run(source, some)
        if found is None:
            found = [(_run(source, [row]) or [NOTHING])[0] for row in some]
        grades += found
    return grades


def _run(source: str, rows: Rows) -> list[Grade] | None:
    pairs = [[row["sample"], row["item"]] for row in rows]
    ran = run_program(source + GRADES_ALL, "_grade_all", (pairs,), LIMITS)
    if ran.ending != "finished":
        failed = Grade(None, ran.error or ran.ending, "program")
        return [failed] if len(rows) == 1 else None
    try:
        grades = [
            Grade(None, str(why), "program") if score is None else Grade(float(score))
            for score, why in ran.value
        ]
    except (TypeError, ValueError):
        grades = []
    return grades if len(grades) == len(rows) else None


def _by_function(function: OwnFunction, rows: Rows) -> list[Grade]:
    grades = []
    for row in rows:
        try:
            grades.append(Grade(float(function(row["sample"], row["item"]))))
        except (OwnError, TypeError, ValueError) as error:
            grades.append(Grade(None, str(error), "program"))
    return grades


def _by_classifier(grader: ClassifierGrader, rows: Rows, means: Means) -> list[Grade]:
    filled = [_text_of(grader.input, row) for row in rows]
    known = [text for text, why in filled if not why]
    shares = iter(means.classify(grader.run, grader.label)(known) if known else ())
    return [_missing(why) if why else Grade(float(next(shares))) for _, why in filled]


def _missing(why: str) -> Grade:
    return Grade(None, why, "variable")


def _text_of(template: str, row: Mapping[str, Any]) -> tuple[str, str]:
    """The text that is meant, or what is missing of it."""
    try:
        return fill(template, row), ""
    except MissingError as error:
        return "", str(error)


def _by_model(
    grader: ScoreModel | LabelModel,
    rows: Rows,
    means: Means,
    form: str,
    read: Callable[[str], Grade],
) -> list[Grade]:
    questions, grades = [], [Grade(None)] * len(rows)
    places = []
    for place, row in enumerate(rows):
        try:
            questions.append(_question(grader.input, row, form))
            places.append(place)
        except MissingError as error:
            grades[place] = _missing(str(error))
    said = means.ask(grader.model, questions, grader.sampling_params)
    for place, answer in zip(places, said, strict=True):
        failed = Grade(None, answer.error, "server")
        grades[place] = failed if answer.error else read(answer.text)
    return grades


def _question(turns: Sequence[Turn], row: Mapping[str, Any], form: str) -> list[Message]:
    """What the model is asked: the grader's messages, and before them how to answer."""
    asked = [Message(turn.role, fill(turn.text, row)) for turn in turns]
    return [Message("system", form), *asked]


def _number(said: str, low: float, high: float) -> Grade:
    found = last_object(said)
    value = found.get("result") if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Grade(None, f"the judge gave no number: {said[:200]!r}", "reply")
    if not low <= value <= high:
        found_out = f"the judge gave {value:g}, which is not from {low:g} to {high:g}"
        return Grade(None, found_out, "reply")
    return Grade(float(value))


def _passes(said: str, grader: LabelModel) -> Grade:
    found = last_object(said)
    label = found.get("result") if found else said.strip()
    if label not in grader.labels:
        return Grade(None, f"the judge gave no label: {said[:200]!r}", "reply")
    return Grade(float(label in grader.passing_labels))


def _by_formula(grader: Multi, rows: Rows, means: Means) -> list[Grade]:
    parts = {name: grade(one, rows, means) for name, one in grader.graders.items()}
    return [
        calculated(grader, {name: grades[place] for name, grades in parts.items()})
        for place in range(len(rows))
    ]


def calculated(grader: Multi, own: Mapping[str, Grade]) -> Grade:
    """What a formula makes of the grades under its names."""
    for name, one in own.items():
        if one.score is None:
            return replace(one, why=f"{name}: {one.why}")
    try:
        numbers = {name: one.score for name, one in own.items() if one.score is not None}
        return Grade(calculate(grader.calculate_output, numbers))
    except FormulaError as error:
        return Grade(None, str(error), "formula")


def check_multi(grader: Multi) -> None:
    """Raise ConfigError for a formula that can never be calculated."""
    where = f"evaluation.graders {grader.name}.calculate_output"
    try:
        unknown = sorted(names_of(grader.calculate_output) - grader.graders.keys())
        if not unknown:
            check_formula(grader.calculate_output)
    except FormulaError as error:
        raise ConfigError(str(error), where=where, accepted="a formula over graders") from None
    if unknown:
        known = ", ".join(grader.graders)
        raise ConfigError(
            f"names {', '.join(unknown)}", where=where, accepted=f"the graders {known}"
        )
