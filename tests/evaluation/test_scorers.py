"""Every scorer: perfect on the target, within bounds, never raising."""

import json
import math
from dataclasses import replace
from typing import get_args

import pytest
from evaluation_fakes import make_chat, make_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_bleu, sentence_chrf

from luthier.data import LabelKind, LabelSet, Message, ToolCall
from luthier.errors import ConfigError
from luthier.evaluation import (
    RANKING_SCORERS,
    SCORERS,
    Metric,
    Prediction,
    Scorer,
    build_scorers,
    class_scorers,
)
from luthier.evaluation.matching import (
    judge_bleu,
    judge_chrf,
    judge_exact,
    judge_fields,
    judge_json,
    judge_normalised,
    judge_number,
    judge_rouge_l,
)
from luthier.recipe import MetricName

JUDGES = {
    "exact": (judge_exact, 1),
    "json": (judge_json, 1),
    "fields": (judge_fields, 1),
    "chrf": (judge_chrf, 100),
    "normalised": (judge_normalised, 1),
    "bleu": (judge_bleu, 100),
    "rouge_l": (judge_rouge_l, 1),
}
TEXTS = st.text(max_size=40) | st.text(alphabet='[]{}",:01 ab\n', max_size=40)


def regex_scorer(pattern: str) -> Scorer:
    (scorer,) = build_scorers(make_evaluation("regex", pattern=pattern))
    return scorer


def score(scorer: Scorer, answer: str, target: str = "") -> float | None:
    return scorer.score(Prediction("row", answer, True, 1), make_chat("row", target))


def test_every_metric_of_the_recipe_has_a_scorer_of_its_name() -> None:
    settings_ = make_evaluation(*SCORERS, pattern="a")
    assert [s.metric.name for s in build_scorers(settings_)] == list(SCORERS)
    of_texts: dict[str, Metric] = {}
    for kind in get_args(LabelKind):
        labels = LabelSet(kind, () if kind == "number" else ("a", "b"), (1, 1))
        of_texts |= {name: s.metric for name, s in class_scorers(labels, ()).items()}
    of_texts |= {name: s.metric for name, s in RANKING_SCORERS.items()}
    assert all(name == metric.name for name, metric in of_texts.items())
    assert {*SCORERS, *of_texts} == set(get_args(MetricName))


def test_the_primary_metric_comes_first_and_once() -> None:
    settings_ = make_evaluation("exact", "chrf", "loss", primary="chrf")
    assert [s.metric.name for s in build_scorers(settings_)] == ["chrf", "exact", "loss"]


@pytest.mark.parametrize("name", JUDGES)
@given(answer=TEXTS, target=TEXTS)
@settings(max_examples=60, deadline=None)
def test_scores_stay_in_bounds_on_any_text(name: str, answer: str, target: str) -> None:
    judge, highest = JUDGES[name]
    value = judge(answer, target)
    assert value is None or 0 <= value <= highest


@pytest.mark.parametrize("name", JUDGES)
@given(target=TEXTS)
@settings(max_examples=60, deadline=None)
def test_the_target_itself_scores_perfectly_or_cannot_be_judged(name: str, target: str) -> None:
    judge, highest = JUDGES[name]
    assert judge(target, target) in (highest, None)
    assert judge(f"\n {target} ", target) in (highest, None)


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_json_target_scores_perfectly_in_any_layout(value: dict[str, int | str]) -> None:
    target, answer = json.dumps(value), json.dumps(dict(reversed(value.items())), indent=2)
    assert judge_exact(answer, target) == judge_json(answer, target) == 1
    assert judge_fields(answer, target) == 1


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("Paris ", " Paris\n", 1),
        ("paris", "Paris", 0),
        ("1.10", "1.1", 0),
        ('{"b": 2, "a": 1.0}', '{"a":1,"b":2}', 1),
        ("[1, 2]", "[2, 1]", 0),
        ('{"a": 1} and more', '{"a": 1}', 0),
        ("", '{"a": 1}', 0),
    ],
)
def test_exact_is_equality_of_text_or_of_json(answer: str, target: str, expected: float) -> None:
    assert judge_exact(answer, target) == expected


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("{}", '{"a": 1}', 1),
        ("[]", '{"a": 1}', 0),
        ("{", '{"a": 1}', 0),
        ("7", "5", 1),
        ('"5"', "5", 0),
        ("null", "true", 0),
        ("{}", "free text", None),
    ],
)
def test_json_needs_the_kind_of_the_target(
    answer: str, target: str, expected: float | None
) -> None:
    assert judge_json(answer, target) == expected


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ('{"a": 1, "b": 2}', '{"a": 1.0, "b": 3}', 0.5),
        ('{"a": 1}', '{"a": 1, "b": 2, "c": 3}', 0.5),
        ('{"a": {"b": [1, 2]}}', '{"a": {"b": [1, 3]}}', 0.5),
        ('{"a": true}', '{"a": 1}', 0),
        ("no json", '{"a": 1}', 0),
        ("[" * 100_000, "[1]", 0),
        ("{}", "{}", 1),
        ("{}", "free text", None),
    ],
)
def test_fields_is_f1_over_paths_and_values(
    answer: str, target: str, expected: float | None
) -> None:
    assert judge_fields(answer, target) == expected


def test_regex_matches_the_whole_answer_but_for_outer_whitespace() -> None:
    scorer = regex_scorer("[a-z]+( [a-z]+)*")
    assert score(scorer, " plain words\n") == 1
    assert score(scorer, "plain words!") == 0


@pytest.mark.parametrize("pattern", ["(", "[a", "*"])
def test_a_pattern_that_does_not_compile_is_a_config_error(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.pattern.*does not compile"):
        regex_scorer(pattern)


def test_regex_without_a_pattern_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="pattern is empty"):
        build_scorers(make_evaluation("exact").model_copy(update={"primary": "regex"}))


def test_chrf_and_rouge_agree_with_their_libraries() -> None:
    answer, target = "the cat sat on a mat", "the cat is on the mat"
    rouge = RougeScorer(["rougeL"]).score(target, answer)["rougeL"].fmeasure
    assert judge_chrf(answer, target) == pytest.approx(sentence_chrf(answer, [target]).score)
    assert judge_rouge_l(answer, target) == pytest.approx(rouge)
    assert judge_rouge_l(answer, target) == pytest.approx(4 / 6)


def test_rouge_knows_words_of_every_script() -> None:
    house, garden, red = "\u0434\u043e\u043c", "\u0441\u0430\u0434", "\u043a\u0440"
    assert judge_rouge_l(f"{red} {house}", f"{red} {garden}") == pytest.approx(0.5)
    assert judge_rouge_l("!", "?") == 0


def test_loss_is_the_predictors_own_and_none_when_it_has_none() -> None:
    (scorer,) = build_scorers(make_evaluation("loss"))
    target = make_chat("row", "x")
    assert scorer.score(Prediction("row", "", True, 1, target_loss=0.25), target) == 0.25
    assert scorer.score(Prediction("row", "", True, 1), target) is None


def preference(name: str, chosen: float | None, rejected: float | None) -> float | None:
    (scorer,) = build_scorers(make_evaluation(name))
    prediction = Prediction("row", "", True, 1, target_loss=chosen, rejected_loss=rejected)
    return scorer.score(prediction, make_chat("row", "x"))


def test_preferences_are_judged_by_the_likelihoods_of_both_answers() -> None:
    assert preference("preference", 1.0, 1.2) == 1
    assert preference("preference", 1.2, 1.0) == 0
    assert preference("preference_probability", 1.0, 1.0) == 0.5
    odds = math.exp(-1.0) / math.exp(-1.2)
    assert preference("preference_probability", 1.0, 1.2) == pytest.approx(odds / (1 + odds))
    for name in ("preference", "preference_probability"):
        assert preference(name, 1.0, None) is None
        assert preference(name, None, 1.0) is None


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_two_answers_share_one_probability(one: float, other: float) -> None:
    chosen = preference("preference_probability", one, other)
    rejected = preference("preference_probability", other, one)
    assert chosen is not None
    assert rejected is not None
    assert 0 <= chosen <= 1
    assert chosen + rejected == pytest.approx(1)


def test_an_answer_cut_at_the_limit_is_scored_as_it_stands() -> None:
    (scorer,) = build_scorers(make_evaluation("exact"))
    cut = Prediction("row", "Paris", False, 1)
    assert scorer.score(cut, make_chat("row", "Paris")) == 1


def test_a_target_that_calls_tools_is_not_judged_by_its_text() -> None:
    (scorer,) = build_scorers(make_evaluation("exact"))
    called = Message("assistant", "", tool_calls=(ToolCall("1", "f", "{}"),))
    chat = make_chat("row", "")
    target = replace(chat, messages=(*chat.prompt, called))
    assert scorer.score(Prediction("row", "", True, 1), target) is None


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("The answer is 42.", "42", 1), ("41 or 42", "42", 1), ("42 or 41", "42", 0),
        ("1,234.5", "1234.5", 1), ("about 99.5", "100", 0), ("no number", "3", 0),
        ("-3", "3", 0), ("1e3", "1000", 1), ("50 %", "50%", 1), ("3", "three", None),
        ("3", "1 or 2", None), ("0.0", "0", 1), (".5", "0.5", 1), ("\u0663", "3", 1),
    ],
)  # fmt: skip
def test_the_last_number_of_an_answer_counts(answer: str, target: str, score: float | None) -> None:
    assert judge_number(answer, target, 1e-6) == score


def test_numbers_may_differ_by_a_share() -> None:
    assert judge_number("99.5", "100", 0.01) == 1
    assert judge_number("98.9", "100", 0.01) == 0
    (scorer,) = build_scorers(make_evaluation("number", tolerance=0.1))
    assert scorer.score(Prediction("a", "110", True, 1), make_chat("a", "100")) == 1


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("Paris.", "paris", 1), ("  New\tYork! ", "new york", 1), ("\uff21\uff11", "a1", 1),
        ("STRASSE", "stra\u00dfe", 1), ("Paris, France", "Paris", 0), ("...", "", 1),
        ("it's", "its", 0), ("caf\u00e9", "cafe\u0301", 1),
    ],
)  # fmt: skip
def test_case_and_punctuation_may_differ(answer: str, target: str, score: float) -> None:
    assert judge_normalised(answer, target) == score


def test_bleu_is_sacrebleus() -> None:
    answer, target = "the cat sat on a mat", "the cat sat on the mat"
    expected = sentence_bleu(answer, [target], use_effective_order=True).score
    assert judge_bleu(answer, target) == pytest.approx(expected)
    assert judge_bleu("", "") == 100
    assert judge_bleu("", "a") == 0
