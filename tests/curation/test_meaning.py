"""Rows of other words are found, parted and chosen by vectors, exactly as one by one."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from luthier.curation import (
    FileSource,
    Options,
    Selection,
    Shares,
    check_rows,
    meaning,
    read_options,
    select_version,
    split_version,
)
from luthier.curation.meaning import Vectors, find_known, find_meant, groups_by_meaning
from luthier.data import Split
from luthier.errors import ConfigError
from luthier.runs import Datasets, NewRow, Origin

MEANINGS = {"begin": 0, "start": 0, "commence": 0, "end": 1, "stop": 1, "finish": 1, "wait": 2}
"""Words that mean the same have one direction."""


def embed(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """[n, 24]: each place of a text has directions of its own."""
    found = np.zeros((len(texts), 24), np.float32)
    for row, text in enumerate(texts):
        for place, word in enumerate(text.split()[:3]):
            found[row, 8 * place + MEANINGS.get(word, 3 + sum(map(ord, word)) % 5)] = 1
    return found


def vectors_of(points: list[tuple[float, float]]) -> Vectors:
    made = Vectors(lambda texts: np.array([points[int(text)] for text in texts], np.float32))
    for start in range(0, len(points), 2):
        made.add([str(i) for i in range(start, min(start + 2, len(points)))])
    return made


POINTS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=24)


@settings(deadline=None)
@given(points=POINTS, at_once=st.integers(1, 9))
def test_blocks_find_what_one_by_one_finds(points: list[tuple[float, float]], at_once: int) -> None:
    threshold = 0.93
    with pytest.MonkeyPatch.context() as patch, vectors_of(points) as vectors:
        patch.setattr(meaning, "AT_ONCE", at_once)
        numbers = np.arange(len(points))
        own = vectors.of(slice(None))
        cosines = own @ own.T
        assert np.abs(np.diag(cosines) - own.any(axis=1)).max() < 2e-3
        kept: list[int] = []
        doubles: list[int] = []
        for i in numbers.tolist():
            is_kept = not kept or cosines[i, kept].max() < threshold
            (kept if is_kept else doubles).append(i)
        found = find_meant(vectors, numbers, threshold)
        assert found["number"].tolist() == doubles
        assert all(cosines[i, j] == pytest.approx(m, abs=1e-5) for i, j, m in found.tolist())
        half = len(points) // 2
        told = find_known(vectors, numbers[:half], numbers[half:], threshold)
        near = cosines[half:, :half].max(axis=1, initial=-1) >= threshold
        assert told["number"].tolist() == (half + np.flatnonzero(near)).tolist()
        groups = groups_by_meaning(vectors, threshold)
        count, components = connected_components(cosines >= threshold)
        assert len(np.unique(groups)) == count
        for component in range(count):
            members = np.flatnonzero(components == component)
            assert groups[members].tolist() == [members[0]] * len(members)


def chat(question: str, answer: str) -> dict[str, Any]:
    said = [("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def test_rows_in_other_words_are_found(tmp_path: Path) -> None:
    rows = [
        chat("begin engine please", "The engine is running now."),
        chat("start engine please", "The engine is running now."),
        chat("commence engine please", "It hums already, as you asked."),
        chat("stop engine please", "The engine is running now."),
        chat("wait here quietly", "I am waiting here for you."),
    ]
    test = [chat("finish engine please", "The engine stands still.")]
    files: dict[Split | None, list[Path]] = {}
    some: list[tuple[Split, list[dict[str, Any]]]] = [("train", rows), ("test", test)]
    for split, content in some:
        place = tmp_path / f"{split}.jsonl"
        place.write_text("\n".join(map(json.dumps, content)) + "\n", encoding="utf-8")
        files[split] = [place]
    options = Options(only=("overlap",), embedder="own", embed=embed)
    checked = check_rows(FileSource(files), options)
    found = {problem.name: problem for problem in checked.problems}
    assert found["reworded-duplicates"].positions.tolist() == [1]
    (case,) = found["reworded-duplicates"].cases
    assert case.detail == f"means {tmp_path / 'train.jsonl'}:1, by a cosine of 1.00"
    assert found["reworded-leaks"].positions.tolist() == [3]
    assert set(found) == {"reworded-duplicates", "reworded-leaks"}
    plain = check_rows(FileSource(files), Options(only=("overlap",)))
    assert plain.problems == ()


def version_of(folder: Path, rows: list[dict[str, Any]]) -> tuple[Datasets, Any]:
    datasets = Datasets(folder / "workspace")
    new = (NewRow(fields, None, f"made:{i}") for i, fields in enumerate(rows))
    return datasets, datasets.add("rows", new, Origin("test"))[0]


def test_rows_in_other_words_are_not_divided(tmp_path: Path) -> None:
    names = [f"{a}{b}" for a in "bcdfghjklm" for b in "aeiou"]
    words = ("begin", "start", "commence")
    rows = [{"text": f"{words[i % 3]} {names[i // 3]} {names[-i // 7]}", "label": "a"}
            for i in range(150)]  # fmt: skip
    datasets, version = version_of(tmp_path, rows)
    shares = Shares(0.3, 0.2, alike=1, embedder="own", embed=embed, meaning=0.99)
    done = split_version(datasets, version, shares)
    assert done.version.details["embedder"] == "own"
    splits: dict[bytes, set[str | None]] = {}
    for row in datasets.content(done.version).rows():
        key = embed([row.fields["text"]]).tobytes()
        splits.setdefault(key, set()).add(row.split)
    assert {len(some) for some in splits.values()} == {1}
    assert len(set().union(*splits.values())) == 3
    apart = split_version(datasets, version, Shares(0.3, 0.2, alike=1))
    assert apart.num_groups == 150 > done.num_groups == len(splits)


def test_diverse_rows_are_of_every_meaning(tmp_path: Path) -> None:
    often = [{"text": f"begin {'xyz'[i % 3]} {i}", "label": "a"} for i in range(180)]
    seldom = [{"text": f"{('stop', 'end')[i % 2]} y {i}", "label": "b"} for i in range(20)]
    datasets, version = version_of(tmp_path, often + seldom)
    selection = Selection(
        limit=20, sample="diverse", embedder="own", embed=lambda texts: embed(texts)[:, :8]
    )
    done, _ = select_version(datasets, version, selection)
    labels = Counter(row.fields["label"] for row in datasets.content(done).rows())
    assert labels == {"a": 10, "b": 10}
    assert done.details["embedder"] == "own"


def test_a_classifier_finds_what_is_unwanted(tmp_path: Path) -> None:
    rows = [
        chat("Say something nice", "What a lovely day it is today."),
        chat("Say something else", "You rotten scoundrel, leave at once."),
        chat("You scoundrel, answer me", "I would rather not say that."),
    ]
    place = tmp_path / "rows.jsonl"
    place.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    asked: list[str] = []

    def of_label(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        asked.extend(texts)
        return np.array([0.9 if "scoundrel" in text else 0.2 for text in texts])

    options = Options(only=("unwanted-content",), unwanted="filter/rude", of_label=of_label)
    (problem,) = check_rows(FileSource({None: [place]}), options).problems
    assert problem.positions.tolist() == [1, 2]
    assert [case.detail for case in problem.cases] == ["by a probability of 90 %"] * 2
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["meaning=1"], "0.3 to 0.99"),
        (["meaning=often"], "a number"),
        (["only=unwanted-content"], "asks no classifier"),
    ],
)
def test_settings_of_models_that_cannot_be_are_refused(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_options(given)


def test_a_model_without_a_limit_of_diverse_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="sample=diverse"):
        Selection(embedder="own", limit=3)
