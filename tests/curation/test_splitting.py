"""Rows are parted so that the test says something, and chosen and mixed as is asked for."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.curation import (
    Part,
    Selection,
    Shares,
    add_files,
    export_version,
    mix_versions,
    select_version,
    split_version,
)
from luthier.curation.selecting import _shared_out
from luthier.errors import ConfigError, DataError
from luthier.runs import Datasets, NewRow, Origin, Version

WORDS = """red green lamp song rain hall winter seven paper clock river stone garden letter harbour
window copper thunder valley mirror candle orchard meadow""".split()  # noqa: SIM905


def row(i: int, **more: Any) -> dict[str, Any]:
    words = random.Random(i).choices(WORDS, k=14)
    return {"text": f"{' '.join(words)} {i}", "label": "ab"[i % 4 == 0], **more}


def kept(
    tmp_path: Path, rows: list[dict[str, Any]], name: str = "rows"
) -> tuple[Datasets, Version]:
    datasets = Datasets(tmp_path / "workspace")
    new = (NewRow(fields, None, f"made:{i}") for i, fields in enumerate(rows))
    version, _ = datasets.add(name, new, Origin("test"))
    return datasets, version


def by_split(datasets: Datasets, version: Version) -> dict[Any, list[dict[str, Any]]]:
    found: dict[Any, list[dict[str, Any]]] = {}
    for each in datasets.content(version).rows():
        found.setdefault(each.split, []).append(each.fields)
    return found


def test_rows_are_parted_by_what_they_ask_alone(tmp_path: Path) -> None:
    rows = [row(i) for i in range(1000)]
    datasets, version = kept(tmp_path, rows)
    done = split_version(datasets, version, Shares(0.2, 0.1))
    assert done.version.splits["test"] == pytest.approx(200, abs=40)
    assert done.version.splits["validation"] == pytest.approx(100, abs=30)
    parted = by_split(datasets, done.version)
    _, fewer = kept(tmp_path, rows[::-2], "fewer")
    again = by_split(datasets, split_version(datasets, fewer, Shares(0.2, 0.1)).version)
    for split, own in again.items():
        assert all(each in parted[split] for each in own)


@pytest.mark.parametrize("by", ["hash", "label", "time"])
def test_rows_that_ask_nearly_the_same_are_never_divided(tmp_path: Path, by: str) -> None:
    rows = [
        row(i, text=f"{row(i)['text']} {said}", day=f"2026-{1 + i % 12:02}-{1 + copy:02}")
        for i in range(200)
        for copy, said in enumerate(("please", "please!", "PLEASE"))
    ]
    datasets, version = kept(tmp_path, rows)
    done = split_version(datasets, version, Shares(0.2, 0.2, by, "day" if by == "time" else ""))
    assert done.num_groups == 200
    parted = by_split(datasets, done.version)
    stems = {split: {r["text"].rsplit(" ", 1)[0] for r in own} for split, own in parted.items()}
    assert not stems["train"] & stems["test"]
    assert not stems["train"] & stems["validation"]
    assert not stems["validation"] & stems["test"]


def test_every_label_has_its_share(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i) for i in range(400)])
    done = split_version(datasets, version, Shares(0.25, 0.25, "label"))
    parted = by_split(datasets, done.version)
    counts = {split: Counter(r["label"] for r in own) for split, own in parted.items()}
    assert counts["test"] == {"a": 75, "b": 25}
    assert counts["validation"] == {"a": 75, "b": 25}


def test_rows_of_one_person_stay_together_and_the_newest_are_the_test(tmp_path: Path) -> None:
    rows = [row(i, person=f"p{i % 37}", day=i) for i in range(300)]
    datasets, version = kept(tmp_path, rows)
    parted = by_split(
        datasets, split_version(datasets, version, Shares(by="group", column="person")).version
    )
    people = [{r["person"] for r in own} for own in parted.values()]
    assert sum(map(len, people)) == 37
    parted = by_split(
        datasets, split_version(datasets, version, Shares(by="time", column="day")).version
    )
    assert [r["day"] for r in parted["test"]] == [*range(270, 300)]
    assert [r["day"] for r in parted["validation"]] == [*range(240, 270)]


def test_a_test_stays_as_it_is_when_rows_are_added(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i) for i in range(300)])
    first = split_version(datasets, version).version
    held = by_split(datasets, first)
    near = {**held["test"][0], "text": held["test"][0]["text"].upper() + "!"}
    more = [*(row(i) for i in range(5000, 5200)), near]
    place = tmp_path / "more.jsonl"
    place.write_text("".join(json.dumps(r) + "\n" for r in more), encoding="utf-8")
    longer, _ = add_files(datasets, "rows", {None: [place]}, after=first)
    done = split_version(datasets, longer)
    after = by_split(datasets, done.version)
    assert after["test"] == held["test"]
    assert after["validation"] == held["validation"]
    assert len(after["train"]) == len(held["train"]) + 200
    assert done.num_left_out == 1
    again = split_version(datasets, done.version)
    assert not again.is_new
    assert again.version == done.version


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"test": 0.7, "validation": 0.4}, "shares below 1"),
        ({"by": "group"}, "expected hash, label, group:COLUMN or time:COLUMN"),
        ({"by": "colour"}, "'colour'"),
        ({"by": "hash", "column": "x"}, "'hash:x'"),
        ({"alike": 0.1}, "0.3 to 1"),
        ({"by": "time", "column": "hour"}, "has no hour; expected at, day"),
        ({"by": "time", "column": "at"}, "at is '22/11/2026'; expected a number, or a date"),
    ],
)
def test_shares_that_cannot_be_are_refused(
    tmp_path: Path, shares: dict[str, Any], said: str
) -> None:
    datasets, version = kept(tmp_path, [row(i, day=i, at="22/11/2026") for i in range(10)])
    with pytest.raises(ConfigError, match=said):
        split_version(datasets, version, Shares(**shares))


def test_rows_that_are_none_are_not_parted(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(1), {"text": None, "label": "a"}])
    with pytest.raises(DataError, match="rows@1:2"):
        split_version(datasets, version)


def selected(datasets: Datasets, version: Version, **how: Any) -> list[dict[str, Any]]:
    done, _ = select_version(datasets, version, Selection(**how), "chosen")
    return [each.fields for each in datasets.content(done).rows()]


def test_rows_are_chosen_by_what_is_true_of_them(tmp_path: Path) -> None:
    rows = [row(i, size=i) for i in range(200)]
    datasets, version = kept(tmp_path, rows)
    assert selected(datasets, version, where="label == 'b' and size < 100") == [
        r for r in rows if r["label"] == "b" and r["size"] < 100
    ]
    assert selected(datasets, version, where="question | length > 45 or size in (1, 2)") == [
        r for r in rows if len(r["text"]) > 45 or r["size"] in (1, 2)
    ]
    ordered = selected(datasets, version, where="size < 50", order="-size")
    assert [r["size"] for r in ordered] == [*range(49, -1, -1)]


def test_a_limit_keeps_the_same_rows_whatever_else_is_there(tmp_path: Path) -> None:
    rows = [row(i) for i in range(300)]
    datasets, version = kept(tmp_path, rows)
    chosen = selected(datasets, version, limit=50)
    assert len(chosen) == 50
    _, other = kept(tmp_path, [r for r in rows if r in chosen or rows.index(r) % 2], "other")
    assert selected(datasets, other, limit=50) == chosen


def test_diverse_rows_are_of_every_kind(tmp_path: Path) -> None:
    kinds = [f"{' '.join(WORDS[k : k + 3])} number" for k in range(0, 12, 3)]
    rows = [{"text": f"{kinds[0 if i < 360 else i % 4]} {i}", "label": "a"} for i in range(400)]
    datasets, version = kept(tmp_path, rows)
    chosen = selected(datasets, version, limit=40, sample="diverse")
    counts = Counter(kinds.index(r["text"].rsplit(" ", 1)[0]) for r in chosen)
    plain = Counter(
        kinds.index(r["text"].rsplit(" ", 1)[0]) for r in selected(datasets, version, limit=40)
    )
    assert len(chosen) == 40
    assert 2 * sum(plain[k] for k in (1, 2, 3)) < sum(counts[k] for k in (1, 2, 3))
    assert chosen == selected(datasets, version, limit=40, sample="diverse")


def test_rows_of_other_splits_stay_when_one_is_chosen_from(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i, size=i) for i in range(300)])
    parted = split_version(datasets, version).version
    done, _ = select_version(datasets, parted, Selection(split="train", limit=20, order="-size"))
    before, after = by_split(datasets, parted), by_split(datasets, done)
    assert after["test"] == before["test"]
    sizes = [r["size"] for r in after["train"]]
    assert len(sizes) == 20
    assert sizes == sorted(sizes, reverse=True)
    assert done.parent == parted.reference


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"where": "label =="}, "is no expression"),
        ({"where": "colour == 'red'"}, "no row has colour"),
        ({"where": "text.__class__"}, "where"),
        ({"where": "label == 'z'"}, "no row is left"),
        ({"limit": 0}, "1 or more"),
        ({"sample": "best"}, "random or diverse"),
        ({"order": "size / 0"}, "order fails"),
    ],
)
def test_selections_that_cannot_be_are_refused(
    tmp_path: Path, how: dict[str, Any], said: str
) -> None:
    datasets, version = kept(tmp_path, [row(i, size=i) for i in range(10)])
    with pytest.raises(ConfigError, match=said):
        selected(datasets, version, **how)
    assert datasets.names() == ["rows"]


def test_expressions_cannot_reach_the_program(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i) for i in range(3)])
    for where in (
        "''.__class__.__mro__", "cycler.__init__.__globals__.os", "lipsum.__globals__['os']",
        "range(10**9) | list | length",
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            selected(datasets, version, where=where)


def test_versions_are_mixed_by_weight(tmp_path: Path) -> None:
    datasets, one = kept(tmp_path, [row(i, of="one") for i in range(90)], "one")
    _, two = kept(tmp_path, [row(i, of="two") for i in range(1000, 1010)], "two")
    held = split_version(datasets, two, Shares(0.3, 0)).version
    num_held = held.splits["test"]

    def mixed(weights: tuple[Any, Any], **how: Any) -> Counter[str]:
        parts = [Part(one, weights[0]), Part(held, weights[1])]
        version, _ = mix_versions(datasets, "mixed", parts, **how)
        found = by_split(datasets, version)
        assert found["test"] == by_split(datasets, held)["test"]
        return Counter(r["of"] for split, own in found.items() for r in own if split != "test")

    assert mixed((None, None)) == {"one": 90, "two": 10 - num_held}
    assert mixed((1, 1), size=100) == {"one": 50, "two": 50}
    assert mixed((3, 1), size=40) == {"one": 30, "two": 10}
    warm = mixed((None, None), temperature=5)
    assert warm["two"] > 10 - num_held
    with pytest.raises(ConfigError, match="above 0"):
        mixed((1, 0))
    with pytest.raises(ConfigError, match="temperature"):
        mixed((1, 1), temperature=0)
    version = datasets.log("mixed")[-1]
    assert version.details["parts"].keys() == {"one@1", held.reference}


@settings(max_examples=100)
@given(st.integers(0, 1000), st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_shares_add_up(total: int, weights: list[float]) -> None:
    import numpy as np

    found = _shared_out(total, np.array(weights))
    assert sum(found) == total
    exact = [total * w / sum(weights) for w in weights]
    assert all(abs(n - x) < 1 + 1e-9 for n, x in zip(found, exact, strict=True))


def test_a_name_that_some_rows_lack_is_not_defined_there(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [{**row(i), **({"score": i % 2} if i < 6 else {})}
                                        for i in range(10)])  # fmt: skip
    chosen, _ = select_version(datasets, version, Selection(where="score == 1"))
    assert chosen.num_rows == 3
    lacking, _ = select_version(datasets, version, Selection(where="score is not defined"))
    assert lacking.num_rows == 4
    with pytest.raises(ConfigError, match=r"no row has scroe.*score"):
        select_version(datasets, version, Selection(where="scroe == 1"))


def test_of_rows_in_an_order_the_first_are_taken(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i, size=(i * 7) % 50) for i in range(50)])
    chosen, _ = select_version(datasets, version, Selection(order="size", limit=5))
    assert [r.fields["size"] for r in datasets.content(chosen).rows()] == [0, 1, 2, 3, 4]


def test_rows_without_a_split_beside_others_are_learnt_from(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i) for i in range(60)])
    parted = split_version(datasets, version).version
    place = tmp_path / "more.jsonl"
    place.write_text(json.dumps(row(100)) + "\n")
    longer, _ = add_files(datasets, "rows", {None: [place]}, after=parted)
    assert longer.num_unparted == 1
    number = parted.splits["train"] + 1
    assert longer.rows_in("train") == number
    assert export_version(longer, datasets.content(longer), tmp_path / "t.jsonl", split="train"
                          ) == number  # fmt: skip
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == number
    for how in (Selection(where="split == 'train'"), Selection(split="train", where="true")):
        chosen, _ = select_version(datasets, longer, how, "chosen")
        assert chosen.rows_in("train") == number
    with pytest.raises(ConfigError, match=r"'foo'.*train"):
        Selection(split="foo")


def test_the_same_rows_from_elsewhere_say_where_they_are_from(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    for name in ("one", "two"):
        place = tmp_path / f"{name}.jsonl"
        place.write_text(json.dumps(row(1)) + "\n")
        version, _ = add_files(datasets, name, {None: [place]})
        (found,) = datasets.content(version).rows()
        assert found.origin == f"{place}:1"
    first, second = datasets.find("one"), datasets.find("two")
    assert first.sha256 == second.sha256
    datasets.delete(first, {})
    assert [*datasets.content(second).rows()]


def test_groups_keep_the_share_that_was_asked_for(tmp_path: Path) -> None:
    sizes = [252, *[8] * 31]
    users = [user for user, size in enumerate(sizes) for _ in range(size)]
    datasets, version = kept(tmp_path, [row(i, user=str(user)) for i, user in enumerate(users)])
    shares = Shares(test=0.2, validation=0.1, by="group", column="user", alike=1.0)
    done = split_version(datasets, version, shares)
    assert abs(done.version.splits["test"] - 100) <= 8
    assert abs(done.version.splits["validation"] - 50) <= 8
    by_user: dict[str, set[str | None]] = {}
    for kept_row in datasets.content(done.version).rows():
        by_user.setdefault(kept_row.fields["user"], set()).add(kept_row.split)
    assert all(len(splits) == 1 for splits in by_user.values())


def test_rows_are_grouped_by_any_plain_column(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i) for i in range(40)])
    done = split_version(datasets, version, Shares(by="group", column="label", alike=1.0))
    by = by_split(datasets, done.version)
    assert all(
        len({r["label"] for r in rows}) == 1 for split, rows in by.items() if split != "train"
    )


def test_a_version_mixed_with_itself_counts_once(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, [row(i) for i in range(10)])
    mixed, _ = mix_versions(datasets, "mixed", [Part(version), Part(version)])
    assert mixed.details["parts"] == {version.reference: 20}
