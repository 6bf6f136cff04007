"""report.json and the two files: golden, inverse, whole or not at all."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_cases import HOME, empty_report, home_report, small_report

from luthier.errors import DataError, StorageError
from luthier.report import (
    NextStep,
    RecipeLine,
    ReportInput,
    StepPoint,
    ValidationPoint,
    read_report,
    to_json,
    write_report,
)

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text()
)


def text_of(report: ReportInput) -> str:
    """The report as text in JSON."""
    return json.dumps(to_json(report), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


@pytest.mark.parametrize(("name", "make"), [("report", small_report), ("empty", empty_report)])
def test_the_json_is_golden(
    name: str, make: Callable[[], ReportInput], golden: Callable[[str, str], None]
) -> None:
    golden(f"{name}.json", text_of(make()))


@pytest.mark.parametrize("make", [small_report, empty_report])
def test_reading_is_the_inverse_of_writing(make: Callable[[], ReportInput]) -> None:
    assert read_report(json.loads(text_of(make()))) == make()


@pytest.mark.skipif(not HOME.exists(), reason="the smart-home data is not here")
def test_a_real_sized_report_comes_back_whole() -> None:
    report = home_report()
    assert read_report(json.loads(text_of(report))) == report


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(), SCALARS | st.dictionaries(st.text(), SCALARS, max_size=2)),
    SCALARS | st.lists(SCALARS, max_size=3).map(tuple),
    st.text(),
)
def test_any_facts_and_recipe_values_come_back(facts: Any, value: Any, text: str) -> None:
    report = dataclasses.replace(
        empty_report(),
        environment=facts,
        recipe=(RecipeLine(text, value, text),),
        next_steps=(NextStep(text, text),),
        warnings=(text,),
    )
    assert read_report(json.loads(text_of(report))) == report


def test_facts_stand_in_one_order_whatever_order_they_came_in() -> None:
    one = dataclasses.replace(empty_report(), model={"b": 1, "a": 2})
    other = dataclasses.replace(empty_report(), model={"a": 2, "b": 1})
    assert text_of(one) == text_of(other)


def test_losses_that_are_not_finite_survive() -> None:
    curve = (StepPoint(1, math.inf, 0.1), StepPoint(2, -math.inf, 0.1))
    report = dataclasses.replace(
        empty_report(), curve=curve, validation=(ValidationPoint(1, math.nan),)
    )
    back = read_report(json.loads(text_of(report)))
    assert back.curve == curve
    assert math.isnan(back.validation[0].loss)


def test_another_kind_of_document_is_refused() -> None:
    with pytest.raises(DataError, match="schema is None, version None; expected schema"):
        read_report({})
    with pytest.raises(DataError, match="version 99"):
        read_report({**to_json(small_report()), "version": 99})


def test_a_damaged_document_lists_what_is_wrong() -> None:
    document = {**to_json(small_report()), "title": None, "curve": [{"step": "x"}]}
    with pytest.raises(DataError) as caught:
        read_report(document)
    assert len(caught.value.details) >= 3
    assert any(line.startswith("curve.0.step") for line in caught.value.details)


def test_both_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    paths = write_report(small_report(), tmp_path / "new" / "folder")
    assert sorted(path.name for path in paths.html.parent.iterdir()) == [
        "report.html",
        "report.json",
    ]
    assert read_report(json.loads(paths.json.read_text(encoding="utf-8"))) == small_report()
    assert paths.html.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert paths.html.stat().st_mode & 0o777 == 0o644


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    write_report(small_report(), tmp_path)
    paths = write_report(empty_report(), tmp_path)
    assert read_report(json.loads(paths.json.read_text(encoding="utf-8"))) == empty_report()
    assert "Not evaluated" in paths.html.read_text(encoding="utf-8")


def test_text_without_a_utf8_form_is_written_and_comes_back(tmp_path: Path) -> None:
    report = dataclasses.replace(empty_report(), title="half \ud83d of a pair")
    paths = write_report(report, tmp_path)
    assert read_report(json.loads(paths.json.read_bytes())).title == report.title
    assert "half \ufffd of a pair" in paths.html.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        write_report(small_report(), tmp_path / "file")
    assert caught.value.where == str(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_failed_write_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(StorageError):
        write_report(small_report(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
