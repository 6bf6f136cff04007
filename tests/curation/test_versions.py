"""Files become versions, and versions are compared."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.curation import add_files, differ, export_version
from luthier.data import canonical, read_dataset
from luthier.errors import ConfigError, DataError
from luthier.recipe import Data
from luthier.runs import Content, Datasets, NewRow, Version
from luthier.runs.contents import keep


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_files_become_a_version_that_knows_them(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    one = write(tmp_path / "one.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    held = write(tmp_path / "held.jsonl", [{"text": "c", "label": "x"}])
    version, is_new = add_files(datasets, "texts", {"train": [one], "test": [held]})
    assert is_new
    assert (version.num_rows, version.splits) == (3, {"train": 2, "test": 1})
    assert set(version.details["files"]) == {str(one), str(held)}
    found = list(datasets.content(version).rows())
    assert [(row.split, row.origin) for row in found] == [
        ("train", f"{one}:1"), ("train", f"{one}:2"), ("test", f"{held}:1"),
    ]  # fmt: skip
    more = write(tmp_path / "more.jsonl", [{"text": "d", "label": "y"}])
    longer, _ = add_files(datasets, "texts", {"train": [more]}, after=version)
    assert (longer.num_rows, longer.parent) == (4, version.reference)
    assert add_files(datasets, "texts", {"train": [more]})[0].parent == longer.reference


def test_rows_that_are_none_refuse_the_whole(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b'{"text": "a"}\n{"text": \n{"text": "\\ud800"}\n[1]\n')
    with pytest.raises(DataError) as caught:
        add_files(datasets, "texts", {None: [broken]})
    said = str(caught.value)
    assert "broken.jsonl:2 is broken JSON" in said
    assert "broken.jsonl:3 holds half a surrogate pair" in said
    assert "broken.jsonl:4 is a JSON list" in said
    assert datasets.names() == []
    broken.write_bytes(b"{\n" * 5000)
    with pytest.raises(DataError, match="1000 problems"):
        add_files(datasets, "texts", {None: [broken]})


def content(folder: Path, rows: list[dict[str, Any]]) -> Content:
    return keep((NewRow(row, None, f"f:{i}") for i, row in enumerate(rows, 1)), folder)


def test_edits_are_told_from_what_came_and_went(tmp_path: Path) -> None:
    before = content(tmp_path, [
        {"id": 1, "text": "kept"}, {"id": 2, "text": "old"}, {"id": 3, "text": "gone"},
        {"prompt": "What?", "completion": "this"}, {"anything": 1},
    ])  # fmt: skip
    after = content(tmp_path, [
        {"prompt": "what?", "completion": "that"}, {"id": 2, "text": "new"},
        {"id": 1, "text": "kept"}, {"id": 4, "text": "came"}, {"anything": 2},
    ])  # fmt: skip
    found = differ(before, after)
    assert found.added == (3, 4)
    assert found.removed == (2, 4)
    assert sorted(found.edited) == [(1, 1), (3, 0)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=9), st.lists(st.integers(0, 4), max_size=9))
def test_a_difference_is_that_of_multisets(
    tmp_path_factory: pytest.TempPathFactory, first: list[int], second: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("contents")
    before, after = (content(folder, [{"row": n} for n in some]) for some in (first, second))
    found = differ(before, after)
    came, went = Counter(second) - Counter(first), Counter(first) - Counter(second)
    assert Counter(row.fields["row"] for row in after.some(found.added)) == came
    assert Counter(row.fields["row"] for row in before.some(found.removed)) == went
    assert found.edited == ()


CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": 'a, "b"'}]}
    for i in range(12)
]


def version_of(folder: Path, rows: list[dict[str, Any]], **held: Path) -> tuple[Version, Content]:
    datasets = Datasets(folder / "workspace")
    files: dict[Any, list[Path]] = {"train" if held else None: [write(folder / "in.jsonl", rows)]}
    version, _ = add_files(
        datasets, "texts", files | {split: [path] for split, path in held.items()}
    )
    return version, datasets.content(version)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_are_written_as_they_are(tmp_path: Path, suffix: str) -> None:
    rows = [*CHATS, {"messages": CHATS[0]["messages"], "lang": "de"}]
    version, kept = version_of(tmp_path, rows)
    place = tmp_path / f"out{suffix}"
    assert export_version(version, kept, place) == 13
    again, _ = version_of(tmp_path, rows)
    examples = [read_dataset(Data(train=p, validation_share=0, test_share=0)).dataset.train
                for p in (tmp_path / "in.jsonl", place)]  # fmt: skip
    assert [canonical(e) for e in examples[0]] == [canonical(e) for e in examples[1]]
    assert [e.slices for e in examples[1]][-1] == {"lang": "de"}
    assert again == version


def test_a_split_is_written_in_the_layout_of_a_service(tmp_path: Path) -> None:
    held = write(tmp_path / "held.jsonl", CHATS[:10])
    version, kept = version_of(tmp_path, CHATS[10:], test=held)
    place = tmp_path / "out.jsonl"
    assert export_version(version, kept, place, layout="vertex", split="test") == 10
    first = json.loads(place.read_text().splitlines()[0])
    assert first["contents"][0] == {"role": "user", "parts": [{"text": "q0"}]}
    with pytest.raises(DataError, match="is the last of 2 rows; expected 10 or more"):
        export_version(version, kept, place, layout="openai", split="train")
    assert len(place.read_text().splitlines()) == 10, "as it was"
    with pytest.raises(ConfigError, match="has no validation rows; expected train, test"):
        export_version(version, kept, place, split="validation")
    with pytest.raises(ConfigError, match="expected openai, azure"):
        export_version(version, kept, place, layout="else")
    with pytest.raises(ConfigError, match=r"ends in \.csv; expected \.jsonl"):
        export_version(version, kept, tmp_path / "x.csv", layout="openai")
    assert not list(tmp_path.glob(".*unfinished*"))


def test_rows_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    version, kept = version_of(tmp_path, [*CHATS, {"messages": []}, {"text": "raw"}])
    with pytest.raises(DataError) as caught:
        export_version(version, kept, tmp_path / "out.jsonl", layout="openai")
    assert "texts@1:13 messages is an empty list" in str(caught.value)
    assert "texts@1:14 is laid out as text" in str(caught.value)
    version, kept = version_of(tmp_path, [{"a": 1}, {"a": "x"}])
    with pytest.raises(DataError, match="several types in a column"):
        export_version(version, kept, tmp_path / "out.parquet")
