"""Graders as OpenAI's interface has them: what each gives, and what it says when it cannot."""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.data import Message
from luthier.errors import ConfigError, EvaluationError
from luthier.evaluation import Means, OwnError, Prediction, Said, build_graders, run_system
from luthier.evaluation.formulas import FormulaError, calculate
from luthier.evaluation.likeness import LIKENESS
from luthier.evaluation.templates import MissingError, fill
from luthier.recipe import Judging, SamplingParams
from tiny import chat

NOTHING = Means()
ANSWER = "{{sample.output_text}}"
REFERENCE = "{{item.reference_answer}}"


def rows(*answers: str) -> tuple[list[Prediction], list[Any]]:
    examples = [
        chat(("user", f"capital {i}?"), ("assistant", "Paris"), line=i) for i in range(len(answers))
    ]
    predictions = [
        Prediction(e.id, text, True, 1) for e, text in zip(examples, answers, strict=True)
    ]
    return predictions, examples


def grades(grader: dict[str, Any], *answers: str, means: Means = NOTHING) -> list[Any]:
    judging = Judging.model_validate({"graders": [{"name": "it", **grader}]})
    (scorer,) = build_graders(judging, means)
    found = scorer.score_all(*rows(*answers))
    return [one.why if one.score is None else one.score for one in found]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("eq", [1, 0, 0]), ("ne", [0, 1, 1]), ("like", [1, 1, 0]), ("ilike", [1, 1, 1])],
)
def test_texts_are_checked(operation: str, expected: list[float]) -> None:
    grader = {"type": "string_check", "input": ANSWER, "reference": REFERENCE}
    found = grades({**grader, "operation": operation}, "Paris", "It is Paris.", "PARIS!")
    assert found == expected


@pytest.mark.parametrize("metric", [*LIKENESS])
def test_likeness_is_1_of_the_same_and_less_of_another(metric: str) -> None:
    grader = {"type": "text_similarity", "input": ANSWER, "reference": "the tower of Paris is tall",
              "evaluation_metric": metric}  # fmt: skip
    same, near, other = grades(
        grader, "the tower of Paris is tall", "the tower of Paris is low", "nothing"
    )
    assert same == pytest.approx(1, abs=0.01)
    assert same > near > other >= 0


def test_fuzzy_match_is_the_share_of_letters_in_common() -> None:
    # rapidfuzz's ratio: 2 x 3 letters in order, of 4 + 4.
    assert LIKENESS["fuzzy_match"]("abcd", "abxd") == pytest.approx(0.75)


def test_gleu_and_meteor_agree_with_their_papers_by_hand() -> None:
    # 4 of 4 one-grams, 2 of 3, 1 of 2 and 0 of 1 ... matches over the larger of both counts.
    assert LIKENESS["gleu"]("a b c", "a b d") == pytest.approx((2 + 1 + 0) / (3 + 2 + 1))
    # Precision 1, recall 1/2: F = 10 P R / (R + 9 P); one chunk of two matches: penalty 0.5 / 8.
    assert LIKENESS["meteor"]("a b", "a b c d") == pytest.approx(5 / 9.5 * (1 - 0.5 / 8))


def test_cosine_asks_for_vectors() -> None:
    grader = {"type": "text_similarity", "input": ANSWER, "reference": "up",
              "evaluation_metric": "cosine"}  # fmt: skip
    vectors = {"up": [0, 2], "right": [3, 0], "both": [1, 1]}
    means = Means(embed=lambda texts: np.array([vectors[t] for t in texts], dtype=np.float32))
    found = grades(grader, "up", "right", "both", means=means)
    assert found == pytest.approx([1, 0, 0.5**0.5])
    with pytest.raises(ConfigError, match=r"evaluation\.embedder"):
        grades(grader, "up")


def test_programs_grade_in_a_sandbox() -> None:
    source = """
def grade(sample, item):
    if sample["output_text"] == "stop":
        import os
        os._exit(0)
    if sample["output_text"] == "raise":
        raise KeyError("no such town")
    if sample["output_text"] == "open":
        open("/tmp/stolen", "w")
    return 0.5 + 0.5 * (sample["output_text"] == item["reference_answer"])
"""
    found = grades({"type": "python", "source": source}, "Paris", "Rome", "raise", "open", "stop")
    assert found[:2] == [1.0, 0.5]
    assert found[2] == "KeyError: 'no such town'"
    assert "Read-only file system" in found[3]
    assert "ended before it was done" in found[4]
    assert "NameError" in grades({"type": "python", "source": "x = 1"}, "Paris")[0]
    assert "is nan" in grades(
        {"type": "python", "source": "def grade(sample, item): return float('nan')"}, "Paris"
    )[0]  # fmt: skip


def test_functions_of_ones_own_may_raise_and_give_nonsense() -> None:
    def own(sample: dict[str, Any], item: dict[str, Any]) -> Any:
        text = sample["output_text"]
        if text == "raise":
            raise OwnError("ValueError: it is broken")
        return {"nan": float("nan"), "none": None}.get(text, len(text))

    means = Means(load=lambda path: own)
    found = grades({"type": "function", "path": "my.module:own"}, "four", "raise", "nan", "none",
                   means=means)  # fmt: skip
    assert found[:3] == [4.0, "ValueError: it is broken", "the score is nan"]
    assert "NoneType" in found[3]


class Judge:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, *said: Said) -> None:
        self.said, self.asked = said, list[list[Message]]()

    def __call__(
        self, model: str, questions: Sequence[Sequence[Message]], how: SamplingParams
    ) -> list[Said]:
        self.asked += [list(question) for question in questions]
        return list(self.said[: len(questions)])


def test_a_model_gives_a_score_or_a_reason() -> None:
    judge = Judge(
        Said('I think {"a": 1}. {"steps": [], "result": 3}'), Said('{"result": 7}'),
        Said("very good!"), Said("", "status 500"), Said('{"result": true}'),
    )  # fmt: skip
    grader = {"type": "score_model", "model": "m", "range": [0, 5],
              "input": [{"role": "user", "content": f"How good is {ANSWER}?"}]}  # fmt: skip
    found = grades(grader, "a", "b", "c", "d", "e", means=Means(ask=judge))
    assert found[0] == 3
    assert "7, which is not from 0 to 5" in found[1]
    assert "no number: 'very good!'" in found[2]
    assert found[3] == "status 500"
    assert "no number" in found[4]
    assert judge.asked[0][1] == Message("user", "How good is a?")
    assert "from 0 to 5" in judge.asked[0][0].content


def test_a_model_chooses_a_label() -> None:
    judge = Judge(Said('{"result": "good"}'), Said("bad"), Said('{"result": "fine"}'))
    grader = {"type": "label_model", "model": "m", "labels": ["good", "bad"],
              "passing_labels": ["good"],
              "input": [{"role": "user", "content": ANSWER}]}  # fmt: skip
    found = grades(grader, "a", "b", "c", means=Means(ask=judge))
    assert found[:2] == [1, 0]
    assert "no label" in found[2]


def test_what_an_answer_says_is_no_template() -> None:
    judge = Judge(Said('{"result": 1}'))
    grader = {"type": "score_model", "model": "m",
              "input": [{"role": "user", "content": f"Grade: {ANSWER}"}]}  # fmt: skip
    grades(grader, "{{item.reference_answer}} {{sample.output_text}}", means=Means(ask=judge))
    assert judge.asked[0][1].content == "Grade: {{item.reference_answer}} {{sample.output_text}}"


def test_several_graders_become_one_score() -> None:
    check = {"type": "string_check", "input": ANSWER, "reference": REFERENCE, "operation": "like"}
    short = {"type": "python", "source": "def grade(s, i): return 1 / len(s['output_text'])"}
    grader = {"type": "multi", "graders": {"right": check, "short": short},
              "calculate_output": "0.5 * right + 0.5 * min(1, 5 * short)"}  # fmt: skip
    found = grades(grader, "Paris", "It is Paris", "")
    assert found[:2] == pytest.approx([1, 0.5 + 0.5 * 5 / 11])
    assert found[2].startswith("short: ZeroDivisionError")
    listed = {**grader, "graders": [{**check, "name": "right"}, {**short, "name": "short"}]}
    assert grades(listed, "Paris") == [1]
    with pytest.raises(ConfigError, match="names wrong"):
        grades({**grader, "calculate_output": "right + wrong"}, "Paris")


def test_a_threshold_makes_a_score_pass_or_fail() -> None:
    grader = {"type": "text_similarity", "input": ANSWER, "reference": REFERENCE,
              "evaluation_metric": "fuzzy_match", "pass_threshold": 0.8}  # fmt: skip
    assert grades(grader, "Pariss", "Rome") == [1, 0]


def test_a_grader_that_judges_nothing_ends_it_and_one_that_misses_some_is_reported() -> None:
    def run(path: str, *answers: str) -> Any:
        judging = Judging.model_validate({
            "graders": [{"name": "mine", "type": "string_check", "input": path,
                         "reference": "x", "operation": "eq"}],
            "metrics": [], "primary": "mine",
        })  # fmt: skip
        predictions, examples = rows(*answers)

        class Fixed:
            name = "fixed"

            def predict(self, examples: Any) -> list[Prediction]:
                return predictions

        return run_system(Fixed(), "rival", examples, build_graders(judging, Means()), judging)

    with pytest.raises(EvaluationError, match=r"none of 2 answers .* there is no item\.nothing"):
        run("{{item.nothing}}", "a", "b")
    result = run("{{sample.output_json.x}}", '{"x": "x"}', "no json")
    assert result.scores["mine"] == (1.0, None)
    assert result.unscored == {"mine": "1 of 2: there is no sample.output_json.x"}


@pytest.mark.parametrize(
    ("grader", "said"),
    [
        ({"type": "string_check", "input": "a", "reference": "b", "operation": "near"}, "eq"),
        ({"type": "python"}, "source"),
        ({"type": "magic"}, "magic"),
        ({"type": "score_model", "model": "m", "input": [], "range": [0, 1]}, "input"),
        ({"type": "score_model", "model": "m", "range": [1, 1],
          "input": [{"role": "user", "content": "x"}]}, "lower end first"),
        ({"type": "label_model", "model": "m", "labels": ["a"], "passing_labels": ["b"],
          "input": [{"role": "user", "content": "x"}]}, "passing_labels names"),
        ({"type": "function", "path": "os.system"}, "pattern"),
    ],
)  # fmt: skip
def test_broken_graders_are_refused(grader: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Judging.model_validate({"graders": [{"name": "it", **grader}]})


def test_names_of_scores_are_not_given_twice() -> None:
    check = {"type": "string_check", "input": "a", "reference": "b", "operation": "eq"}
    for name in ("exact", "judge", "auto"):
        with pytest.raises(ValidationError, match=f"called '{name}'"):
            Judging.model_validate({"graders": [{"name": name, **check}]})
    with pytest.raises(ValidationError, match="called 'it'"):
        Judging.model_validate({"graders": [{"name": "it", **check}] * 2})


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{item.a}} and {{ sample.b }}", "1 and two"),
        ("{{item.list[1].x}}{{item.list.0}}", '{"y": 2}0'),
        ("{ {item.a} } {{}", "{ {item.a} } {{}"),
    ],
)
def test_templates_are_filled(template: str, expected: str) -> None:
    known = {"item": {"a": 1, "list": [0, {"x": {"y": 2}}]}, "sample": {"b": "two"}}
    assert fill(template, known) == expected


@pytest.mark.parametrize(
    "template", ["{{item.c}}", "{{other.a}}", "{{item.a.b}}", "{{item.__class__}}", "{{item.a|x}}",
                 "{{ item . a }}", "{{item.list[9]}}", "{{}}"],
)  # fmt: skip
def test_templates_that_name_nothing_say_so(template: str) -> None:
    with pytest.raises(MissingError):
        fill(template, {"item": {"a": 1, "list": [1]}, "sample": {}})


@given(st.text(), st.text())
def test_what_is_filled_in_is_filled_in_once(value: str, around: str) -> None:
    around = around.replace("{", "").replace("}", "")
    assert fill(f"{around}{{{{item.x}}}}", {"item": {"x": value}}) == around + value


@pytest.mark.parametrize(
    ("formula", "value"),
    [("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("2 ^ 3 ^ 2", 512), ("-a ^ 2", -0.25),
     ("max(a, b, 0.1) / 2", 0.375), ("floor(2.7) + ceil(2.1)", 5), ("exp(log(3))", 3),
     ("sqrt(abs(-4))", 2)],
)  # fmt: skip
def test_formulas_are_calculated(formula: str, value: float) -> None:
    assert calculate(formula, {"a": 0.5, "b": 0.75}) == pytest.approx(value)


@pytest.mark.parametrize(
    "formula",
    ["", "a +", "c", "1 / 0", "log(0)", "9 ^ 9 ^ 9 ^ 9", "__import__('os')", "a.real", "[a]",
     "a if a else b", "'x'", "(lambda: 1)()", "max(*a)", "True", "a == b", "exp(1000)",
     "(" * 5000, "min()", "sqrt(-1)", "a // b"],
)  # fmt: skip
def test_other_formulas_are_refused(formula: str) -> None:
    with pytest.raises(FormulaError):
        calculate(formula, {"a": 0.5, "b": 0.75})


@given(st.text("ab0123456789+-*/^(). ", max_size=40))
def test_no_formula_does_anything_but_give_a_number(formula: str) -> None:
    with suppress(FormulaError):
        assert isinstance(calculate(formula, {"a": 1.0, "b": 2.0}), float)


def test_graders_read_as_the_interface_writes_them() -> None:
    # The interface's own example of a multi grader (API reference, graders).
    given_json = json.loads("""{
      "type": "multi", "name": "example multi grader",
      "graders": [
        {"type": "text_similarity", "name": "text_similarity_score", "input": "The graded text",
         "reference": "The reference text", "evaluation_metric": "fuzzy_match"},
        {"type": "string_check", "name": "string_check_score", "input": "{{sample.output_text}}",
         "reference": "{{item.label}}", "operation": "eq"}],
      "calculate_output": "0.5 * text_similarity_score +  0.5 * string_check_score"}""")
    (grader,) = Judging.model_validate({"graders": [given_json]}).graders
    assert grader.name == "example multi grader"
