"""Rows that are kept come back as they were, by order, position and id."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data import Split
from luthier.errors import StorageError
from luthier.runs import Content, NewRow, contents
from luthier.runs.contents import keep

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(
        st.characters(exclude_categories=["Cs"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(
        st.characters(exclude_categories=["Cs"]), max_size=5
    ), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
ROWS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["text", "label", "id"]), VALUES, max_size=3),
        st.sampled_from([None, "train", "validation", "test"]),
    ),
    max_size=12,
)


def rows(number: int, split: Split | None = None) -> list[NewRow]:
    return [NewRow({"text": f"row {i % 7}", "n": i}, split, f"f:{i + 1}") for i in range(number)]


def folders(place: Path) -> list[Path]:
    return [inner for inner in place.iterdir() if inner.is_dir()]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of two rows, and two groups a file."""
    monkeypatch.setattr(contents, "GROUP_ROWS", 2)
    monkeypatch.setattr(contents, "SHARD_ROWS", 4)


@pytest.mark.usefixtures("small")
def test_rows_come_back_by_order_position_and_id(tmp_path: Path) -> None:
    content = keep(rows(11), tmp_path)
    assert len(list(content.folder.glob("*.parquet"))) == 3
    found = list(content.rows())
    assert [(row.position, row.fields["n"]) for row in found] == [(i + 1, i) for i in range(11)]
    for i, row in enumerate(found):
        assert content.at(i) == row
        assert content.row(row.id) == row
    assert [row.position for row in content.some([3, 2, 10, 0])] == [4, 3, 11, 1]
    assert content.row("0" * 32) is None
    assert content.row("") is None, "all rows begin like this"


@settings(max_examples=50, deadline=None)
@given(drawn=ROWS)
def test_any_row_comes_back(tmp_path_factory: pytest.TempPathFactory, drawn: list) -> None:  # type: ignore[type-arg]
    kept = [NewRow(fields, split, "f:1") for fields, split in drawn]
    content = keep(kept, tmp_path_factory.mktemp("contents"))
    found = list(content.rows())
    assert [(row.fields, row.split) for row in found] == drawn
    assert content.summary.num_rows == len(drawn)
    for row in found:
        again = content.row(row.id)
        assert again is not None
        assert again.id == row.id


def test_equal_rows_in_equal_order_are_kept_once(tmp_path: Path) -> None:
    first = keep(rows(5), tmp_path)
    assert keep(rows(5), tmp_path).folder == first.folder
    others = [keep(some, tmp_path).summary.sha256 for some in (
        rows(5)[::-1], rows(4), rows(5, "test"),
    )]  # fmt: skip
    assert len({first.summary.sha256, *others}) == 4
    assert len(folders(tmp_path)) == 4
    spelt = [NewRow({"n": row.fields["n"], "text": row.fields["text"]}, None, row.origin)
             for row in rows(5)]  # fmt: skip
    assert keep(spelt, tmp_path).folder == first.folder, "the order of fields says nothing"
    moved = keep([replace(row, origin="elsewhere:9") for row in rows(5)], tmp_path)
    assert moved.summary.sha256 == first.summary.sha256
    assert {row.origin for row in moved.rows()} == {"elsewhere:9"}
    assert {row.origin for row in first.rows()} != {"elsewhere:9"}


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[NewRow]:
        yield from rows(3)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        keep(broken(), tmp_path)
    assert folders(tmp_path) == []


def test_a_killed_writer_leaves_what_the_next_removes(tmp_path: Path) -> None:
    writer = multiprocessing.get_context("fork").Process(
        target=_die_while_writing, args=(tmp_path,)
    )
    writer.start()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    assert [place.name.startswith("incoming-") for place in folders(tmp_path)] == [True]
    content = keep(rows(3), tmp_path)
    assert folders(tmp_path) == [content.folder]


def _die_while_writing(folder: Path) -> None:
    def dying() -> Iterator[NewRow]:
        yield from rows(5000)
        os.kill(os.getpid(), signal.SIGKILL)

    keep(dying(), folder)


def test_another_writers_incoming_rows_are_left_alone(tmp_path: Path) -> None:
    def slow() -> Iterator[NewRow]:
        yield from rows(2)
        keep(rows(9), tmp_path)
        assert len(list(tmp_path.glob("incoming-*"))) == 1
        yield from rows(1)

    assert keep(slow(), tmp_path).summary.num_rows == 3
    assert len(folders(tmp_path)) == 2


def test_damage_is_said(tmp_path: Path) -> None:
    content = keep(rows(3), tmp_path)
    shard = next(content.folder.glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(StorageError, match="is damaged"):
        list(content.rows())
    (content.folder / "content.json").write_text("{")
    with pytest.raises(StorageError, match="is damaged"):
        Content(content.folder)
