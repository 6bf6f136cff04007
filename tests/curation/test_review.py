"""Faults that a reader of the source found: each row of them, once and for all."""

import json
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from luthier.curation import (
    CHECKS,
    Checked,
    FileSource,
    Options,
    Part,
    Shares,
    add_files,
    as_json,
    check_rows,
    data_report,
    fix_version,
    mask,
    mix_versions,
    split_version,
)
from luthier.curation.characters import unusual_in
from luthier.errors import ConfigError, DataError
from luthier.runs import Datasets, NewRow, Origin

SECRET = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
MAIL = "anna.berg@firma.de"


def checked(folder: Path, rows: list[Any], *skip: str) -> Checked:
    place = folder / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return check_rows(FileSource({None: [place]}), Options(skip=skip))


def rates_of(folder: Path, rows: list[Any]) -> set[str]:
    """Groups that differ."""
    others = [name for name in CHECKS if name != "slices"]
    return {rate.group for rate in checked(folder, rows, *others).rates}


def answered_with(answer: str, number: int) -> dict[str, Any]:
    """A conversation."""
    asked = {"role": "user", "content": f"What is the answer to question number {number}?"}
    return {"messages": [asked, {"role": "assistant", "content": answer}]}


def names(result: Checked) -> set[str]:
    return {problem.name for problem in result.problems}


@pytest.mark.parametrize("labels", [["a"], ["a"] * 30, [f"l{i}" for i in range(30)]])
def test_labels_that_cannot_be_doubted_do_not_end_the_check(
    tmp_path: Path, labels: list[str]
) -> None:
    rows = [{"text": f"hello there {i}", "label": label} for i, label in enumerate(labels)]
    assert checked(tmp_path, rows).num_rows == len(rows)


def test_groups_are_written_as_json(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": "ab"[i % 2], "lang": "de" if i % 3 else "en"}
            for i in range(40)]  # fmt: skip
    report = data_report(
        checked(tmp_path, rows), "x", datetime(2026, 1, 1, tzinfo=UTC), lambda p: ""
    )
    assert json.loads(as_json(report))["slices"] == {"lang": {"de": 26, "en": 14}}


@pytest.mark.parametrize(
    "tool",
    [
        {"name": "f", "parameters": {"type": "dict"}}, {"name": ["f"], "parameters": {}}, "light",
        {"name": "f", "parameters": {"properties": {"a": {"pattern": "["}}}},
        {"name": "f", "parameters": {"properties": {"a": {"multipleOf": 0}}}},
        {"name": "f", "parameters": {"properties": {"a": {"pattern": "^(a+)+$"}}}},
    ],
)  # fmt: skip
def test_any_schema_of_a_tool_is_survived(tmp_path: Path, tool: Any) -> None:
    call = {"id": "c", "type": "function",
            "function": {"name": "f", "arguments": json.dumps({"a": "a" * 40 + "!"})}}  # fmt: skip
    number = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 3}'}}
    rows = [
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [one]}],
         "tools": [{"type": "function", "function": tool}]}
        for one in (call, number)
    ]  # fmt: skip
    assert checked(tmp_path, rows).num_rows == 2


def test_columns_of_any_type_are_kept(tmp_path: Path) -> None:
    table = pa.table({
        "text": ["a"], "label": ["x"], "at": [datetime(2026, 1, 2, 3, 4)],
        "day": [date(2026, 1, 2)],
        "price": [Decimal("1.50")], "raw": [b"\x01\xff"], "nothing": [float("nan")], "n": [3],
    })  # fmt: skip
    parquet.write_table(table, tmp_path / "rows.parquet")
    datasets = Datasets(tmp_path / "workspace")
    version, _ = add_files(datasets, "rows", {None: [tmp_path / "rows.parquet"]})
    (row,) = datasets.content(version).rows()
    assert row.fields == {"text": "a", "label": "x", "at": "2026-01-02T03:04:00",
                          "day": "2026-01-02", "price": "1.50", "raw": "01ff", "n": 3}  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": f"c {MAIL} {SECRET}"},
        {"anchor": "a", "positive": "b", "negative": f"c {MAIL} {SECRET}"},
        {"text": "a", "label": "b", "note": f"c {MAIL} {SECRET}"},
    ],
)
def test_private_data_is_found_in_every_field(tmp_path: Path, row: dict[str, Any]) -> None:
    result = checked(tmp_path, [row])
    assert {"secrets", "personal-data"} <= names(result)
    report = data_report(result, "x", datetime(2026, 1, 1, tzinfo=UTC), lambda p: "")
    assert "anna" not in as_json(report)
    assert "ghp_" not in as_json(report)


@pytest.mark.parametrize(
    "text",
    [
        "\u8bf7\u8054\u7cfbanna.berg@firma.cn\u8c22\u8c22", f"\u5bc6\u94a5\u662f{SECRET}\u3002",
        "\u5361\u53f74111 1111 1111 1111\u7ed3\u675f", "card 2223 0031 2200 3222.",
        "hf_abcdefghijklmnopqrstuvwxyzABCDEF", "sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
    ],
)  # fmt: skip
def test_masks_reach_beside_any_script(text: str) -> None:
    assert "[" in mask(text)


def test_names_of_groups_and_labels_are_masked(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": MAIL if i % 2 else "b", "owner": MAIL if i % 2 else "me"}
            for i in range(100)]  # fmt: skip
    report = data_report(
        checked(tmp_path, rows), "x", datetime(2026, 1, 1, tzinfo=UTC), lambda p: ""
    )
    assert "anna" not in as_json(report)


def test_long_runs_of_colons_take_little_time() -> None:
    assert mask(":" * 40_000) == ":" * 40_000
    assert mask("://a:b" * 5_000).startswith("://a")


def test_what_is_mended_can_still_be_read(tmp_path: Path) -> None:
    given = json.dumps({"card": 4111111111111111, "to": f"Dear\n{MAIL}"})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": given}}
    row = {"messages": [{"role": "user", "content": f"pay {MAIL}"},
                        {"role": "assistant", "tool_calls": [call]}]}  # fmt: skip
    datasets = Datasets(tmp_path / "workspace")
    version, _ = datasets.add("rows", [NewRow(row, None, "x")], Origin("test"))
    done = fix_version(datasets, version, ["personal-data"])
    (kept,) = datasets.content(done.version).rows()
    arguments = kept.fields["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(arguments) == {"card": "[CARD]", "to": "Dear\n[EMAIL]"}


@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "a", "completion": "b", "label": True},
         {"prompt": "a", "completion": "c", "label": False}],
        [{"prompt": "a", "chosen": "b", "rejected": "c"},
         {"prompt": "a", "chosen": "d", "rejected": "e"}],
        [{"anchor": "a", "positive": "b"}, {"anchor": "a", "positive": "c"}],
        [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": ["y"]}],
        [{"anchor": "a", "positive": "b", "negative": "c"},
         {"anchor": "a", "positive": "b", "negative": "d"}],
    ],
)  # fmt: skip
def test_layouts_with_several_answers_have_no_conflicts(tmp_path: Path, rows: list[Any]) -> None:
    assert not {"conflicting-answers", "exact-duplicates"} & names(checked(tmp_path, rows))


def test_test_rows_are_neither_left_out_nor_relabelled(tmp_path: Path) -> None:
    held = [NewRow({"text": "a b c", "label": "x"}, "validation", "v"),
            NewRow({"text": "a b c", "label": "x"}, "test", "t")]  # fmt: skip
    learnt = [NewRow({"text": f"row {i}", "label": "y"}, "train", "l") for i in (1, 2, 2)]
    datasets = Datasets(tmp_path / "workspace")
    version, _ = datasets.add("rows", [*learnt, *held], Origin("test"))
    done = fix_version(datasets, version, ["exact-duplicates"])
    assert done.version.splits == {"train": 2, "validation": 1, "test": 1}


def test_nothing_is_no_version(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    with pytest.raises(ConfigError, match="would have no row"):
        datasets.add("rows", [], Origin("test"))
    version, _ = datasets.add("rows", [NewRow({"text": "a"}, "test", "t")], Origin("test"))
    with pytest.raises(ConfigError, match="has no row to learn from"):
        mix_versions(datasets, "mixed", [Part(version, 1.0)])
    with pytest.raises(ConfigError, match="size"):
        mix_versions(datasets, "mixed", [Part(version, 1.0)], size=-5)


@pytest.mark.parametrize(
    "answer",
    [
        "Android is a system developed by Google for telephones.",
        "PyTorch was created by Meta.",
        "As an AI researcher, she wrote it.",
        "My training data was split in two.",
        "I can't help falling in love with you.",
    ],
)
def test_what_is_no_refusal_stays(tmp_path: Path, answer: str) -> None:
    assert "refusals" not in names(checked(tmp_path, [{"prompt": "q", "completion": answer}]))


def test_labels_of_few_rows_have_test_rows_too(tmp_path: Path) -> None:
    rows = [
        {"text": f"{i} {i * 7919} text of label {i % 20}", "label": f"l{i % 20}"}
        for i in range(100)
    ]
    datasets = Datasets(tmp_path / "workspace")
    version, _ = datasets.add("rows", (NewRow(r, None, "x") for r in rows), Origin("test"))
    done = split_version(datasets, version, Shares(0.1, 0.1, "label", alike=1))
    assert done.version.splits == {"train": 80, "validation": 10, "test": 10}
    assert done.empty == ()
    few, _ = datasets.add("few", (NewRow(r, None, "x") for r in rows[:2]), Origin("test"))
    assert "test" in split_version(datasets, few, Shares(0.1, 0.1, "label", alike=1)).empty


def test_all_rows_that_are_too_long_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {i}", "completion": "a" * (30_000 if i < 300 else 20) + f" {i}."}
            for i in range(1000)]  # fmt: skip
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (problem,) = check_rows(FileSource({None: [place]}), Options(only=["lengths"])).problems
    assert problem.positions.tolist() == [*range(300)]
    assert len(problem.cases) == 200


def test_splits_in_files_of_different_kinds_are_not_lost(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text('{"text": "a", "label": "b"}\n', encoding="utf-8")
    (tmp_path / "set" / "test.csv").write_text("text,label\nc,d\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"holds \.csv, \.jsonl files, of different splits"):
        add_files(Datasets(tmp_path / "workspace"), "rows", {None: [str(tmp_path / "set")]})


def test_labels_of_test_rows_are_spelled_as_others(tmp_path: Path) -> None:
    rows = [NewRow({"text": f"row {i}", "label": "spam" if i % 2 else "ham"}, "train", "l")
            for i in range(20)]  # fmt: skip
    held = NewRow({"text": "another", "label": "Spam "}, "test", "t")
    datasets = Datasets(tmp_path / "workspace")
    version, _ = datasets.add("rows", [*rows, held], Origin("test"))
    done = fix_version(datasets, version, ["label-spellings"])
    assert [*datasets.content(done.version).rows()][-1].fields["label"] == "spam"


@pytest.mark.parametrize(
    "text",
    [
        "Wales \U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f waves",
        "\u845b\U000e0100\u98fe",
        "\u05e9\u05dc\u05d5\u05dd\u200f!",
        "100\u200f \u200f\u05e9\u05e7\u05dc",
        "family \U0001f468\u200d\U0001f469\u200d\U0001f467",
    ],
)
def test_marks_that_scripts_and_flags_need_stay(text: str) -> None:
    assert not unusual_in(text).search(text)


@pytest.mark.parametrize(
    "text",
    ["hidden \U000e0048\U000e0069", "a\u200fb", "x\U000e0100", "zero\u200bwidth", "\u202etxt"],
)
def test_marks_that_hide_text_are_found(text: str) -> None:
    unusual = unusual_in(text)
    assert unusual.search(text)
    assert not unusual.search(unusual.sub("", text))


@pytest.mark.parametrize(
    "answer",
    [
        "Call ```print(1)``` on a line of its own, like this:\n```print(1)```\nand it works.",
        "<list>\n<Item/>\n<Item name='a' />\n<br/>\n</list>\nThat is such a document.",
    ],
)
def test_closed_blocks_and_tags_are_whole(tmp_path: Path, answer: str) -> None:
    rows = [answered_with(answer, number) for number in range(20)]
    assert "broken-markup" not in names(checked(tmp_path, rows))


def test_lists_are_not_cut_off(tmp_path: Path) -> None:
    sentence = "This is an answer of some length, and it ends as all the others end."
    listed = "You need all of these things for the cake that you asked about:\n- flour\n- two eggs"
    cut = f"{listed}, and"
    for answer, is_cut in ((listed, False), (cut, True)):
        rows = [*(answered_with(sentence, n) for n in range(30)), answered_with(answer, 30)]
        assert ("cut-off-answers" in names(checked(tmp_path, rows))) == is_cut


def test_beginnings_that_come_late_are_counted(tmp_path: Path) -> None:
    """After a thousand others that come twice."""
    rows = [answered_with(f"{n // 2} words that begin an answer, {n}", n) for n in range(2200)]
    rows += [answered_with(f"Sure, here is the answer: {n}", n) for n in range(3000, 3600)]
    (problem,) = [p for p in checked(tmp_path, rows).problems if p.name == "boilerplate"]
    assert problem.num_rows == 600


def test_differences_that_chance_makes_are_not_told(tmp_path: Path) -> None:
    draw = random.Random(1)
    rows = [
        {"text": f"text number {n}", "label": draw.choice("ab"), "group": f"g{draw.randrange(25)}"}
        for n in range(2500)
    ]
    assert not rates_of(tmp_path, rows)
    for row in rows:
        row["label"] = "a" if row["group"] == "g3" else row["label"]
    assert rates_of(tmp_path, rows) == {"g3"}
