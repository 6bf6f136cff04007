"""Versions of datasets: what a reference means, and what may be forgotten."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from luthier.errors import ConfigError, StorageError
from luthier.runs import Datasets, NewRow, Origin, Version


def rows(*texts: str) -> list[NewRow]:
    return [NewRow({"text": text}, None, f"f:{i}") for i, text in enumerate(texts, 1)]


def added(datasets: Datasets, name: str, texts: Sequence[str], parent: str = "") -> Version:
    return datasets.add(name, rows(*texts), Origin("add", parent))[0]


@pytest.fixture
def datasets(tmp_path: Path) -> Datasets:
    return Datasets(tmp_path)


def test_a_reference_means_the_newest_a_number_a_tag_or_rows(datasets: Datasets) -> None:
    first = added(datasets, "intents", ["a"])
    second = added(datasets, "intents", ["a", "b"])
    datasets.tag(first, "reviewed")
    assert datasets.find("intents") == second
    assert datasets.find("dataset:intents@2") == second
    assert datasets.find("intents@1") == datasets.find("intents@reviewed") == first
    assert datasets.find(f"intents@{first.sha256[:8]}") == first
    datasets.tag(second, "reviewed")
    assert datasets.find("intents@reviewed") == second
    assert datasets.tags(second) == ["reviewed"]
    assert datasets.tags(first) == []
    with pytest.raises(ConfigError, match=r"has no version '7'; expected 1, 2, reviewed"):
        datasets.find("intents@7")
    with pytest.raises(ConfigError, match=r"there is no dataset 'intent'; expected intents"):
        datasets.find("intent")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", ".hidden", "x" * 65, "-dash"])
def test_a_name_cannot_leave_the_folder(datasets: Datasets, name: str) -> None:
    with pytest.raises(ConfigError, match="dataset name"):
        added(datasets, name, ["a"])
    with pytest.raises(ConfigError, match="there is no dataset"):
        datasets.find(name)
    if datasets.folder.exists():
        assert datasets.names() == []


@pytest.mark.parametrize("tag", ["", "12", "a/b", "two words"])
def test_a_tag_is_a_word(datasets: Datasets, tag: str) -> None:
    with pytest.raises(ConfigError, match="tag"):
        datasets.tag(added(datasets, "x", ["a"]), tag)


def test_the_same_rows_again_are_no_new_version(datasets: Datasets) -> None:
    first, is_new = datasets.add("x", rows("a"), Origin("add"))
    assert is_new
    assert datasets.add("x", rows("a"), Origin("add")) == (first, False)
    added(datasets, "x", ["b"])
    back = added(datasets, "x", ["a"])
    assert (back.number, back.sha256) == (3, first.sha256)


def test_what_was_used_or_built_upon_stays(datasets: Datasets) -> None:
    first = added(datasets, "x", ["a"])
    second = added(datasets, "x", ["b"], parent=first.reference)
    other = added(datasets, "y", ["b"])
    with pytest.raises(ConfigError, match="versions were made from") as caught:
        datasets.delete(first, {})
    assert "x@2" in str(caught.value)
    with pytest.raises(ConfigError, match="runs were tuned on") as caught:
        datasets.delete(second, {second.sha256: ["run-7"]})
    assert "run-7" in str(caught.value)
    datasets.delete(second, {})
    assert [row.fields["text"] for row in datasets.content(other).rows()] == ["b"], "y has them too"
    datasets.delete(other, {})
    assert datasets.names() == ["x"]
    with pytest.raises(StorageError):
        datasets.content(other)
    datasets.delete(first, {})
    assert datasets.names() == []
    assert added(datasets, "x", ["c"]).number == 3, "numbers are not given twice"


def test_a_damaged_record_is_said(datasets: Datasets) -> None:
    added(datasets, "x", ["a"])
    place = datasets.folder / "x" / "dataset.json"
    place.write_text('{"versions": 3}')
    with pytest.raises(StorageError, match="is no record of a dataset"):
        datasets.find("x")


def test_two_may_add_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        found = list(pool.map(_add_one, [(tmp_path, i) for i in range(12)]))
    assert sorted(found) == list(range(1, 13))
    assert [version.number for version in Datasets(tmp_path).log("x")] == list(range(1, 13))


def _add_one(job: tuple[Path, int]) -> int:
    folder, i = job
    return added(Datasets(folder), "x", [f"text {i}"]).number
