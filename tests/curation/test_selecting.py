"""Versions that are chosen, ordered and mixed from others."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.curation import Part, Selection, mix_versions, select_version
from luthier.data import Split
from luthier.errors import ConfigError
from luthier.runs import Datasets, NewRow, Origin, Version

Asked = tuple[str, Split | None]


def version_of(datasets: Datasets, name: str, rows: list[Asked]) -> Version:
    made = (
        NewRow({"prompt": asked, "completion": f"answer to {asked}"}, split, f"{name}:{number}")
        for number, (asked, split) in enumerate(rows)
    )
    return datasets.add(name, made, Origin("add", "", {}))[0]


def rows_of(datasets: Datasets, version: Version) -> list[Asked]:
    return [(row.fields["prompt"], row.split) for row in datasets.content(version).rows()]


def test_what_one_version_tests_another_does_not_teach(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    one = version_of(
        datasets, "one", [("a", "train"), ("b", "train"), ("c", "test"), ("d", "validation")]
    )
    two = version_of(
        datasets, "two",
        [("C ", "train"), ("e", "train"), ("c", "test"), ("c", "validation"), ("f", "validation")],
    )  # fmt: skip
    mixed, _ = mix_versions(datasets, "mixed", [Part(one), Part(two)])
    found = rows_of(datasets, mixed)
    assert sorted(found, key=str) == [
        ("a", "train"), ("b", "train"), ("c", "test"), ("d", "validation"), ("e", "train"),
        ("f", "validation"),
    ]  # fmt: skip
    assert mixed.details["left out"] == 1
    taught = version_of(datasets, "taught", [("c", "train")])
    with pytest.raises(ConfigError, match="has no row to learn from"):
        mix_versions(datasets, "mixed", [Part(one), Part(taught)])


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    size=st.integers(1, 60),
)  # fmt: skip
def test_a_mixture_has_its_size_and_repeats_evenly(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], size: int
) -> None:
    datasets = Datasets(tmp_path_factory.mktemp("mix"))
    parts = [
        Part(version_of(datasets, f"part{p}", [(f"{p} {i}", None) for i in range(number)]), 1.0)
        for p, number in enumerate(sizes)
    ]
    mixed, _ = mix_versions(datasets, "mixed", parts, size=size)
    found = [asked for asked, _ in rows_of(datasets, mixed)]
    assert len(found) == size
    for p, number in enumerate(sizes):
        counts = [found.count(f"{p} {i}") for i in range(number)]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == mixed.details["parts"][f"part{p}@1"]


def test_rows_are_ordered_by_several_values(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    version = version_of(datasets, "rows", [(t, None) for t in ("bb", "a", "ab", "b", "ccc")])
    ordered, _ = select_version(
        datasets, version, Selection(order="[question | length, question]"), "ordered"
    )
    assert [asked for asked, _ in rows_of(datasets, ordered)] == ["a", "b", "ab", "bb", "ccc"]
