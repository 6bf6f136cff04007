"""Splits are stable and clean; every problem of every file is found before anything starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data import (
    Chat,
    Dataset,
    Message,
    Place,
    Rated,
    prompt_key,
    read_dataset,
    refuse_errors,
)
from luthier.data.splitting import limit_by_hash, split_by_hash
from luthier.errors import DataError
from luthier.recipe import Data

SHARED = Path(__file__).parents[3] / "shared" / "data"


def chat(prompt: str, line: int) -> Chat:
    messages = (Message("user", prompt), Message("assistant", f"answer {line}"))
    return Chat(f"r{line}", Place("f", line), messages)


def chats(prompts: list[str]) -> list[Chat]:
    return [chat(prompt, line) for line, prompt in enumerate(prompts, 1)]


PROMPTS = st.lists(st.text("abc ", min_size=1, max_size=4), min_size=1, max_size=30)


@given(PROMPTS, st.floats(0, 0.4), st.floats(0, 0.4))
@settings(max_examples=100, deadline=None)
def test_equal_prompts_never_straddle_a_split(
    prompts: list[str], validation: float, test: float
) -> None:
    splits = split_by_hash(chats(prompts), validation, test)
    assert sorted(c.id for split in splits.values() for c in split) == sorted(
        c.id for c in chats(prompts)
    )
    keys = {name: {prompt_key(c) for c in split} for name, split in splits.items()}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]
    if len({prompt_key(c) for c in chats(prompts)}) >= 3:
        assert keys["train"]
        assert test == 0 or keys["test"]
        assert validation == 0 or keys["validation"]


def test_adding_rows_moves_no_other_row() -> None:
    few = [f"prompt {i}" for i in range(200)]
    before = split_by_hash(chats(few), 0.1, 0.1)
    after = split_by_hash(chats([*few, *(f"new {i}" for i in range(100))]), 0.1, 0.1)
    for name, split in before.items():
        assert {c.id for c in split} <= {c.id for c in after[name]}
    assert 8 <= len(before["test"]) <= 35


@given(PROMPTS, st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_a_limit_picks_the_same_rows_whatever_their_order(prompts: list[str], limit: int) -> None:
    distinct = chats(sorted({prompt.replace(" ", "x") for prompt in prompts}))
    picked = limit_by_hash(distinct, limit)
    assert len(picked) == min(limit, len(distinct))
    assert {c.id for c in limit_by_hash(distinct[::-1], limit)} == {c.id for c in picked}
    assert limit_by_hash(distinct, None) == distinct


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(i: int) -> dict[str, Any]:
    return {"prompt": f"question {i}", "completion": f"answer {i}"}


def dataset(path: Path, **settings: Any) -> Dataset:
    reading = read_dataset(Data.model_validate({"train": path, **settings}))
    refuse_errors(reading.findings)
    return reading.dataset


def test_one_file_becomes_three_splits_and_its_hash_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(i) for i in range(100)])
    found = dataset(path)
    assert len(found.train) + len(found.validation) + len(found.test) == 100
    assert found.test
    assert found.validation
    assert list(found.files) == [str(path)]
    assert len(found.files[str(path)]) == 64
    assert found.fingerprint == dataset(path).fingerprint
    assert found.fingerprint != dataset(path, limit=10).fingerprint
    assert len(dataset(path, limit=10).train) == 10


def test_named_files_are_used_whole(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [row(i) for i in range(50)])
    test = write(tmp_path / "test.jsonl", [row(i) for i in range(100, 110)])
    found = dataset(train, test=test)
    assert len(found.test) == 10
    assert len(found.train) + len(found.validation) == 50
    assert found.validation


def test_leaks_and_repeats_are_warnings(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [row(1), row(2), row(2)])
    test = write(tmp_path / "test.jsonl", [row(1), row(9)])
    reading = read_dataset(
        Data.model_validate({"train": train, "test": test, "validation_share": 0})
    )
    assert [(f.name, f.severity, f.place.line) for f in reading.findings] == [
        ("leaked-prompt", "warning", 1),
        ("repeated-row", "warning", 3),
    ]
    refuse_errors(reading.findings)


def test_rows_of_another_layout_and_duplicate_ids_are_listed(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        [{**row(1), "id": "x"}, {"instruction": "a", "output": "b"}, {**row(2), "id": "x"}],
    )
    reading = read_dataset(Data.model_validate({"train": path}))
    assert [(f.name, f.place.line) for f in reading.findings] == [
        ("unknown-layout", 2),
        ("duplicate-id", 3),
    ]
    with pytest.raises(DataError, match="2 problems in 2 rows"):
        refuse_errors(reading.findings)


def labelled(*labels: object) -> list[dict[str, object]]:
    return [{"prompt": f"q{i}", "completion": "a", "label": x} for i, x in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "wanted", "expected"),
    [
        ((True, False, "ok"), "auto", "label is 'ok'; expected true or false, or one of"),
        (("ok", True), "auto", "laid out as rated, and the rows before it as prompt-completion"),
        ((1, 0, 2), "rated", "label is 2; expected true or false"),
    ],
)
def test_labels_that_are_no_marks_beside_marks_are_listed(
    tmp_path: Path, labels: tuple[object, ...], wanted: str, expected: str
) -> None:
    path = write(tmp_path / "rows.jsonl", labelled(*labels))
    reading = read_dataset(Data.model_validate({"train": path, "format": wanted}))
    assert [f.place.line for f in reading.findings] == [len(labels)]
    assert expected in str(reading.findings[0])


def test_0_and_1_are_marks_where_the_recipe_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", labelled(1, 0, 1))
    shares = {"train": path, "validation_share": 0, "test_share": 0}
    rated = read_dataset(Data.model_validate({**shares, "format": "rated"})).dataset.train
    assert [isinstance(e, Rated) and e.is_good for e in rated] == [True, False, True]
    assert all(isinstance(e, Chat) for e in read_dataset(Data.model_validate(shares)).dataset.train)


def test_many_findings_are_cut_in_the_message_but_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": ""} for _ in range(80)])
    reading = read_dataset(Data.model_validate({"train": path}))
    with pytest.raises(DataError, match="80 problems in 80 rows") as caught:
        refuse_errors(reading.findings)
    assert "and 30 more" in str(caught.value)


def test_a_format_that_is_asked_for_is_the_only_one(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [row(i) for i in range(5)])
    reading = read_dataset(Data.model_validate({"train": path, "format": "messages"}))
    assert {f.name for f in reading.findings} == {"unknown-layout"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared datasets are not here")
@pytest.mark.parametrize(
    "name", ["home-json", "deb-synopsis", "toolcalls", "shell", "identity", "spelling"]
)
def test_real_datasets_are_read_without_a_finding(name: str) -> None:
    files = {split: SHARED / name / f"{split}.jsonl" for split in ("train", "validation", "test")}
    reading = read_dataset(Data.model_validate(files))
    assert [f for f in reading.findings if f.severity == "error"] == []
    assert len(reading.dataset.train) == files["train"].read_bytes().count(b"\n")
