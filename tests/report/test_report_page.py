"""The page: golden, whole, closed to the network, and safe with any text."""

import base64
import dataclasses
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import (
    EXACT,
    HOME,
    LOSS,
    chat,
    comparison,
    empty_report,
    home_report,
    small_evaluation,
    small_report,
    system_result,
    unclear_report,
)

from luthier.evaluation.values import Estimate, EvaluationResult, Metric, Verdict
from luthier.report import (
    DroppedRow,
    LedgerSummary,
    NextStep,
    RecipeLine,
    ReportInput,
    SplitLedger,
    StageTime,
    read_report,
    render_html,
    to_json,
)

VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """Tags, attributes and texts of a page; every tag opened must be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.contents: dict[str, str] = {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.contents[inside] = self.contents.get(inside, "") + data
        if inside not in ("script", "style"):
            self.text += data


def hostile_report(text: str) -> ReportInput:
    """A report that holds the text in every place where data can reach the page."""
    chats = (chat(text, 1, text, text, text), chat(text + "2", 2, text, "other"))
    estimate = {"exact": Estimate(0.5, 0.1, 0.9, 2, text)}
    before = system_result(text, "few_shot", chats, [text, text], estimate)
    after = system_result(text + "+", "tuned", chats, ["x " + text, "other"], estimate)
    metric = dataclasses.replace(EXACT, title=text)
    compared = dataclasses.replace(
        comparison(chats, before, after, -0.4, 0.4), test=text, interval_method=text
    )
    verdict = Verdict("worse", text, compared)
    return dataclasses.replace(
        small_report(),
        title=text,
        run_id=text,
        evaluation=EvaluationResult(
            (metric,), "exact", chats, (before, after), (compared, compared), verdict
        ),
        ledger=LedgerSummary((SplitLedger("train", 2, 1, (DroppedRow(text, text, text, 3),)),)),
        recipe=(RecipeLine(text, text, text), RecipeLine("a." + text, (text,), text)),
        environment={text: text},
        timings=(StageTime(text, 1.0),),
        model={text: text, "source": text},
        data={"files": {text: text}},
        next_steps=(NextStep(text, text),),
        warnings=(text,),
    )


def test_the_small_page_is_golden(golden: Callable[[str, str], None]) -> None:
    golden("report.html", render_html(small_report()))


def test_the_empty_page_is_golden(golden: Callable[[str, str], None]) -> None:
    golden("empty.html", render_html(empty_report()))


def test_no_part_of_an_empty_report_is_invented() -> None:
    page = Page(render_html(empty_report()))
    assert "Not evaluated" in page.text
    assert "svg" not in page.tags
    assert "table" not in page.tags
    assert "No training steps were recorded." in page.text


@pytest.mark.parametrize("make", [small_report, empty_report])
def test_the_page_names_nothing_outside_itself(make: Callable[[], ReportInput]) -> None:
    html = render_html(make())
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    links = [value for name, value in page.attributes if name in ("href", "src", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not {"link", "img", "iframe", "object", "embed", "form", "base"} & set(page.tags)


def test_every_link_inside_the_page_has_its_place() -> None:
    page = Page(render_html(small_report()))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {v[1:] for name, v in page.attributes if name == "href"} <= set(ids)


def test_the_policy_allows_exactly_the_pages_own_style_and_script() -> None:
    html = render_html(small_report())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.group(1).split(";"))
    contents = Page(html).contents

    def digest(tag: str) -> str:
        return (
            "'sha256-"
            + base64.b64encode(hashlib.sha256(contents[tag].encode()).digest()).decode()
            + "'"
        )

    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest("style"),
        "script-src": digest("script"),
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_no_attribute_needs_an_inline_style_or_handler() -> None:
    names = {name for name, _ in Page(render_html(small_report())).attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "</style></svg></title><b>",
        "{{ 7 * 7 }} {% raw %}",
        "<!--",
        "a\x00b\x1b[31m\ud800",
    ],
)
def test_text_from_data_never_becomes_markup(text: str) -> None:
    assert_same_skeleton(text)


@settings(max_examples=15, deadline=None)
@given(
    st.text(st.sampled_from("<>&\"'/=`{}%#-!x \n\x00") | st.characters(), min_size=1, max_size=30)
)
def test_any_text_leaves_the_page_whole(text: str) -> None:
    assert_same_skeleton(text)


def assert_same_skeleton(text: str) -> None:
    """The page has only tags and attributes that it has with harmless text."""
    page, harmless = Page(render_html(hostile_report(text))), Page(render_html(small_report()))
    assert set(page.tags) <= set(harmless.tags)
    names = {name for name, _ in harmless.attributes}
    assert {name for name, _ in page.attributes} <= names
    assert page.tags.count("script") == 1
    assert page.contents["script"] == harmless.contents["script"]
    assert page.contents["style"] == harmless.contents["style"]


def test_a_page_from_report_json_is_the_same_page() -> None:
    report = small_report()
    assert render_html(read_report(to_json(report))) == render_html(report)


@pytest.mark.parametrize(
    ("decision", "words", "symbol"),
    [
        ("better", "Better by 70.7\u00a0points", "\u25b2"),
        ("worse", "Worse by 70.7\u00a0points", "\u25bc"),
        ("cannot tell", "Cannot tell", "\u25c6"),
    ],
)
def test_the_decision_is_said_without_colour(decision: Any, words: str, symbol: str) -> None:
    evaluation = small_evaluation()
    assert evaluation.verdict
    compared = dataclasses.replace(evaluation.verdict.comparison, difference=0.7067)
    verdict = Verdict(decision, "In words.", compared)
    report = dataclasses.replace(
        small_report(), evaluation=dataclasses.replace(evaluation, verdict=verdict)
    )
    text = Page(render_html(report)).text
    assert words in text
    assert symbol in text


def test_an_evaluation_without_a_verdict_still_shows_scores_and_rows() -> None:
    evaluation = dataclasses.replace(small_evaluation(), verdict=None, comparisons=())
    page = Page(render_html(dataclasses.replace(small_report(), evaluation=evaluation)))
    assert "No verdict" in page.text
    assert "No paired comparison was made." in page.text
    assert "dim to 42" in page.text
    assert ("id", "show-all") not in page.attributes


def test_an_evaluation_of_one_system_shows_its_answers() -> None:
    evaluation = small_evaluation()
    alone = dataclasses.replace(
        evaluation, systems=evaluation.systems[:1], verdict=None, comparisons=()
    )
    page = Page(render_html(dataclasses.replace(small_report(), evaluation=alone)))
    assert "Sure! Here is what you asked for." in page.text


@pytest.mark.parametrize("systems", [(), None])
def test_an_evaluation_without_scores_says_so(systems: tuple[()] | None) -> None:
    metrics: tuple[Metric, ...] = (EXACT,) if systems is not None else ()
    nothing = EvaluationResult(metrics, "exact", (), (), (), None)
    page = Page(render_html(dataclasses.replace(small_report(), evaluation=nothing)))
    assert "No system was scored." in page.text
    assert "No test rows were answered." in page.text


def test_a_comparison_without_interval_or_power_is_shown_without_them() -> None:
    evaluation = small_evaluation()
    assert evaluation.verdict
    bare = dataclasses.replace(
        evaluation.verdict.comparison, low=None, high=None, minimum_detectable=None
    )
    verdict = dataclasses.replace(evaluation.verdict, comparison=bare)
    report = dataclasses.replace(
        small_report(), evaluation=dataclasses.replace(evaluation, verdict=verdict)
    )
    text = Page(render_html(report)).text
    assert "too small for this test set to show" not in text
    assert "interval unknown" in text


def test_many_comparisons_are_listed_with_their_adjusted_p_values() -> None:
    evaluation = small_evaluation()
    first = evaluation.comparisons[0]
    other = dataclasses.replace(first, adjusted_p_value=0.75)
    unknown = dataclasses.replace(first, metric="unknown")
    report = dataclasses.replace(
        small_report(),
        evaluation=dataclasses.replace(evaluation, comparisons=(first, other, unknown)),
    )
    assert "adjusted p\u00a0=\u00a00.750" in Page(render_html(report)).text


def test_a_metric_that_a_system_lacks_is_a_dash() -> None:
    evaluation = dataclasses.replace(small_evaluation(), metrics=(EXACT, LOSS))
    page = Page(render_html(dataclasses.replace(small_report(), evaluation=evaluation)))
    assert "Loss on the answer" in page.text
    assert "lower is better" in page.text
    assert "\u2013" in page.text


@pytest.mark.skipif(not HOME.exists(), reason="the smart-home data is not here")
@pytest.mark.parametrize("make", [home_report, unclear_report])
def test_a_real_sized_page_embeds_some_rows_and_says_how_many_it_left_out(
    make: Callable[[], ReportInput],
) -> None:
    html = render_html(make())
    page = Page(html)
    assert page.tags.count("article") == 40
    assert "110 more are in report.json" in page.text
    assert len(html) < 200_000
