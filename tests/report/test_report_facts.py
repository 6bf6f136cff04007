"""Facts of a run as lines of words."""

import dataclasses

from report_cases import empty_report, small_report

from luthier.report import DroppedRow, LedgerSummary, RecipeLine, SplitLedger, StepPoint
from luthier.report.facts import (
    MAX_PLACES,
    Fact,
    dropped_reasons,
    fact_lines,
    interval_name,
    ledger_lines,
    peak_memory,
    recipe_sections,
    recipe_value,
    training_facts,
)


def test_training_is_summed_up_in_numbers() -> None:
    facts = {fact.name: fact for fact in training_facts(small_report())}
    assert facts["Steps"].lines == ("3",)
    assert facts["Training loss"].lines == ("2.500 to 0.750",)
    assert facts["Best validation loss"] == Fact("Best validation loss", ("1.100",), "step 2")
    assert facts["Supervised tokens"].lines == ("250",)


def test_what_no_step_measured_is_a_dash() -> None:
    report = dataclasses.replace(empty_report(), curve=(StepPoint(1, 2.0, 0.1),))
    lines = [fact.lines[0] for fact in training_facts(report)]
    assert lines == ["1", "2.000 to 2.000", "\u2013", "\u2013", "\u2013", "\u2013"]
    assert training_facts(empty_report()) == ()


def test_peak_memory_is_the_runs_or_the_highest_step() -> None:
    assert peak_memory(small_report()) == "3.00\u00a0GiB"
    steps_only = dataclasses.replace(small_report(), peak_memory_bytes=None)
    assert peak_memory(steps_only) == "2.00\u00a0GiB"
    assert peak_memory(empty_report()) == ""


def test_an_interval_is_named_by_its_confidence() -> None:
    assert (
        interval_name((RecipeLine("evaluation.confidence", 0.9, "--set"),)) == "90\u00a0% interval"
    )
    assert interval_name(()) == "interval"


def test_the_ledger_adds_up() -> None:
    train, test = ledger_lines(small_report().ledger)
    assert (train.num_rows, train.num_kept, train.num_dropped) == ("12", "10", "2")
    assert train.num_supervised == "250 (25\u00a0%)"
    assert test.num_dropped == "0"
    (empty,) = ledger_lines(LedgerSummary((SplitLedger("validation", 0, 0),)))
    assert empty.num_supervised == "0"


def test_dropped_rows_are_listed_by_reason_and_counted_past_the_limit() -> None:
    rows = tuple(DroppedRow(f"r{n}", f"a.jsonl:{n}", "too long", 9) for n in range(MAX_PLACES + 3))
    rare = DroppedRow("a.jsonl:99", "a.jsonl:99", "broken")
    long, broken = dropped_reasons(LedgerSummary((SplitLedger("train", 20, 4, (rare, *rows)),)))
    assert (long.reason, long.num_rows, long.num_more) == ("too long", "15\u00a0rows", 3)
    assert long.places[0] == "a.jsonl:0 r0 (9\u00a0tokens)"
    assert broken.places == ("a.jsonl:99",)


def test_recipe_values_stand_in_their_sections() -> None:
    lines = (
        RecipeLine("name", "demo", "given"),
        RecipeLine("tuning.rank", 16, "default"),
        RecipeLine("tuning.alpha", 32.0, "--set"),
    )
    sections = recipe_sections(lines)
    assert [name for name, _ in sections] == ["", "tuning"]
    assert [(s.path, s.value, s.is_default) for s in sections[1][1]] == [
        ("rank", "16", True),
        ("alpha", "32", False),
    ]


def test_recipe_values_are_written_as_yaml_has_them() -> None:
    values = [None, True, 3, 0.0005, "", "text", ("a", 1)]
    assert [recipe_value(value) for value in values] == [
        "null", "true", "3", "0.0005", '""', "text", "[a, 1]",
    ]  # fmt: skip


def test_facts_have_readable_names_and_the_identifying_ones_first() -> None:
    facts = fact_lines({
        "trainable_parameters": 4884480,
        "share": 0.5,
        "sha256": "ab",
        "revision": None,
        "bf16": True,
        "gpu": False,
        "files": {"b": "2", "a": "1"},
    })  # fmt: skip
    assert [(fact.name, fact.lines) for fact in facts] == [
        ("Revision", ("\u2013",)),
        ("SHA-256", ("ab",)),
        ("Files", ("a  1", "b  2")),
        ("Bf16", ("yes",)),
        ("GPU", ("no",)),
        ("Share", ("0.5",)),
        ("Trainable parameters", ("4,884,480",)),
    ]
