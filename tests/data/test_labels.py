"""Labelled rows, pairs and collections: how they are read, and all that can be wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.data import (
    Collection,
    Dataset,
    Finding,
    Labelled,
    Pair,
    collection_of,
    read_collection,
    read_dataset,
    read_label_set,
    refuse_errors,
)
from luthier.errors import DataError
from luthier.recipe import Data

Rows = list[dict[str, Any]]


def written(folder: Path, rows: Rows, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder: Path, rows: Rows, **settings: Any) -> tuple[Dataset, list[Finding]]:
    apart = {"validation_share": 0.0, "test_share": 0.0}
    data = Data.model_validate({"train": written(folder, rows), **apart, **settings})
    found = read_dataset(data)
    return found.dataset, list(found.findings)


def said(findings: list[Finding], severity: str = "error") -> list[str]:
    return [f"{f.place.line} {f.name}" for f in findings if f.severity == severity]


def labelled(text: str, label: Any, **more: Any) -> dict[str, Any]:
    return {"text": text, "label": label, **more}


FINE: Rows = [labelled(f"text {i}", "ab"[i % 2]) for i in range(10)]


def test_labels_are_read_as_they_are_written(tmp_path: Path) -> None:
    dataset, findings = read(tmp_path, [labelled("one", "spam", lang="en"), labelled("two", "ham")])
    first = dataset.train[0]
    assert isinstance(first, Labelled)
    assert (first.text, first.second, first.labels, first.form) == ("one", None, ("spam",), "text")
    assert first.slices == {"lang": "en"}
    assert first.target.content == "spam"
    assert not said(findings)


@pytest.mark.parametrize(
    ("value", "labels", "form"),
    [
        (3, ("3",), "number"), (3.0, ("3",), "number"), (2.5, ("2.5",), "number"),
        (True, ("true",), "text"), (["a", "b", "a"], ("a", "b"), "list"), ([], (), "list"),
        ('["a", "b"]', ("a", "b"), "list"), ("[x", ("[x",), "text"),
    ],
)  # fmt: skip
def test_numbers_truths_and_lists_are_labels_too(
    value: Any, labels: tuple[str, ...], form: str, tmp_path: Path
) -> None:
    dataset, _ = read(tmp_path, [labelled("text", value)])
    example = dataset.train[0]
    assert isinstance(example, Labelled)
    assert (example.labels, example.form) == (labels, form)


@pytest.mark.parametrize(
    "names", [("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis")]
)
def test_two_texts_may_share_a_label(names: tuple[str, str], tmp_path: Path) -> None:
    dataset, _ = read(tmp_path, [{names[0]: "one", names[1]: "two", "label": "same"}])
    example = dataset.train[0]
    assert isinstance(example, Labelled)
    assert example.texts == ("one", "two")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (labelled("", "a"), "empty-content"),
        (labelled("  ", "a"), "empty-content"),
        ({"text": None, "label": "a"}, "null-content"),
        (labelled("text", None), "null-label"),
        (labelled("text", " "), "empty-label"),
        (labelled("text", {"a": 1}), "wrong-type"),
        (labelled("text", ["a", None]), "null-label"),
        ({"text": "one", "text_pair": None, "label": "a"}, "unknown-layout"),
        ({"text": "one", "text_pair": "", "label": "a"}, "unknown-layout"),
        ({"text": "alone"}, "unknown-layout"),
    ],
)
def test_a_broken_row_is_found_with_its_line(
    row: dict[str, Any], name: str, tmp_path: Path
) -> None:
    _, findings = read(tmp_path, [*FINE, row])
    assert said(findings) == [f"11 {name}"]


def test_a_pair_with_one_side_missing_is_found(tmp_path: Path) -> None:
    rows: Rows = [{"text": f"a {i}", "text_pair": f"b {i}", "label": "xy"[i % 2]} for i in range(8)]
    broken: Rows = [
        {"text": "a", "text_pair": None, "label": "x"},
        {"text": "a", "text_pair": "", "label": "x"},
        {"text": "a", "label": "x"},
    ]  # fmt: skip
    _, findings = read(tmp_path, rows + broken)
    assert said(findings) == ["9 null-content", "10 empty-content", "11 unknown-layout"]
    with pytest.raises(DataError, match="3 problems in 3 rows"):
        refuse_errors(findings)


def test_one_label_spelled_two_ways_is_refused(tmp_path: Path) -> None:
    rows = [labelled(f"t{i}", "Spam" if i % 3 else "ham") for i in range(9)]
    _, findings = read(tmp_path, [*rows, labelled("x", "spam ")])
    (found,) = [f for f in findings if f.severity == "error"]
    assert str(found).endswith(
        ":10 label is 'spam ' in 1 row, and 'Spam' in 6 rows; expected one spelling of every "
        "label; write 'Spam' in all of them"
    )


def test_numbers_in_some_rows_and_words_in_others_are_refused(tmp_path: Path) -> None:
    _, findings = read(tmp_path, [labelled("a", 1), labelled("b", "2"), labelled("c", 3)])
    assert said(findings) == ["2 mixed-labels"]


def test_numbers_written_as_text_are_told(tmp_path: Path) -> None:
    _, findings = read(tmp_path, [labelled(f"t{i}", str(i % 5)) for i in range(20)])
    assert "1 numbers-as-text" in said(findings, "warning")


def test_equal_texts_with_different_labels_are_listed(tmp_path: Path) -> None:
    _, findings = read(tmp_path, [*FINE, labelled("Text  1", "a")])
    (found,) = [f for f in findings if f.name == "contradicting-labels"]
    assert found.place.line == 11
    assert "rows.jsonl:2" in str(found)


def test_rare_labels_and_those_missing_from_a_split_are_told(tmp_path: Path) -> None:
    test = written(tmp_path, [labelled("new", "c"), labelled("old", "a")], "test.jsonl")
    _, findings = read(tmp_path, [*FINE, labelled("r", "rare")], test=test)
    names = {f.name: str(f) for f in findings}
    assert "'c', which no training row has" in names["unknown-label"]
    assert "2 ('b', 'rare') of 3 labels" in names["label-not-held-out"]
    assert "'rare' has 1 row in training" in names["rare-label"]
    assert not said(findings)


@pytest.mark.parametrize(
    ("form", "advice"),
    [("label {}", "tune a search model"), ("{}.5", "or set method.labels: number")],
)
def test_ten_thousand_classes_are_no_classes(tmp_path: Path, form: str, advice: str) -> None:
    dataset, _ = read(tmp_path, [labelled(f"t{i}", form.format(i)) for i in range(10_000)])
    examples = [e for e in dataset.train if isinstance(e, Labelled)]
    with pytest.raises(DataError, match="takes 10,000 values in 10,000 rows") as caught:
        read_label_set(examples, "single")
    assert advice in str(caught.value)
    if advice.endswith("number"):
        assert read_label_set(examples, "number").kind == "number"


def test_one_class_only_is_nothing_to_learn(tmp_path: Path) -> None:
    dataset, _ = read(tmp_path, [labelled(f"t{i}", "a") for i in range(5)])
    examples = [e for e in dataset.train if isinstance(e, Labelled)]
    with pytest.raises(DataError, match="all 5 training rows have the label 'a'"):
        read_label_set(examples, "single")


def test_a_label_set_is_in_order_numbers_by_size(tmp_path: Path) -> None:
    dataset, _ = read(tmp_path, [labelled(f"t{i}", (10, 9, 100)[i % 3]) for i in range(7)])
    labels = read_label_set([e for e in dataset.train if isinstance(e, Labelled)], "single")
    assert labels.names == ("9", "10", "100")
    assert labels.counts == (2, 3, 2)


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=2, max_size=30))
def test_counts_are_those_of_the_rows(names: list[str]) -> None:
    examples = [
        Labelled(str(i), None, "t", None, (name,))  # type: ignore[arg-type]
        for i, name in enumerate(names)
    ]
    if len(set(names)) < 2:
        return
    labels = read_label_set(examples, "single")
    assert dict(zip(labels.names, labels.counts, strict=True)) == {
        name: names.count(name) for name in set(names)
    }


def test_pairs_are_read_with_their_negatives(tmp_path: Path) -> None:
    rows: Rows = [
        {"anchor": "a", "positive": "b"},
        {"anchor": "c", "positive": "d", "negative": "e"},
        {"anchor": "f", "positive": "g", "negative_1": "h", "negative_2": "i"},
        {"anchor": "j", "positive": "k", "negatives": ["l", "m"]},
    ]
    dataset, findings = read(tmp_path, rows)
    assert [e.texts for e in dataset.train if isinstance(e, Pair)] == [
        ("a", "b"), ("c", "d", "e"), ("f", "g", "h", "i"), ("j", "k", "l", "m"),
    ]  # fmt: skip
    assert not said(findings)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"anchor": "a", "positive": ""}, "empty-content"),
        ({"anchor": "a", "positive": "a"}, "equal-texts"),
        ({"anchor": "a", "positive": "b", "negative": "b"}, "equal-texts"),
        ({"anchor": "a"}, "unknown-layout"),
    ],
)
def test_a_broken_pair_is_found(row: dict[str, Any], name: str, tmp_path: Path) -> None:
    _, findings = read(tmp_path, [{"anchor": "x", "positive": "y"}, row])
    assert said(findings) == [f"2 {name}"]


def test_scores_of_pairs_are_numbers(tmp_path: Path) -> None:
    rows: Rows = [
        {"sentence1": "a", "sentence2": "b", "score": 3},
        {"sentence1": "c", "sentence2": "d", "score": "0.5"},
        {"sentence1": "e", "sentence2": "f", "score": "very"},
    ]
    dataset, findings = read(tmp_path, rows)
    assert [e.score for e in dataset.train if isinstance(e, Pair)] == [3.0, 0.5]
    assert said(findings) == ["3 wrong-score"]


def collection(
    folder: Path, corpus: Rows, queries: Rows, judgements: str
) -> tuple[Collection, list[Finding]]:
    findings: list[Finding] = []
    place = folder / "qrels.tsv"
    place.write_text(judgements, encoding="utf-8")
    found = read_collection(
        written(folder, corpus, "corpus.jsonl"), written(folder, queries, "queries.jsonl"),
        place, findings.append,
    )  # fmt: skip
    return found, findings


CORPUS: Rows = [{"_id": "d1", "text": "one"}, {"_id": "d2", "title": "Two", "text": "two"}]
QUERIES: Rows = [{"_id": "q1", "text": "first?", "lang": "en"}, {"_id": "q2", "text": "unasked"}]
HEADER = "query-id\tcorpus-id\tscore\n"


def test_a_collection_is_read_as_beir_lays_it_out(tmp_path: Path) -> None:
    found, findings = collection(tmp_path, CORPUS, QUERIES, HEADER + "q1\td1\t2\nq1\td2\t0\n")
    assert found.texts == {"d1": "one", "d2": "Two\ntwo"}
    (query,) = found.queries
    assert (query.id, query.text, query.relevant) == ("q1", "first?", (("d1", 2.0),))
    assert query.slices == {"lang": "en"}
    assert not findings


def test_what_is_wrong_with_a_collection_is_found(tmp_path: Path) -> None:
    corpus = [*CORPUS, {"_id": "d1", "text": "again"}, {"_id": "d3", "text": ""}, {"text": "x"}]
    judgements = HEADER + "q1\td1\t1\nq9\td1\t1\nq1\td9\t1\nq1\td2\tgood\n"
    _, findings = collection(tmp_path, corpus, QUERIES, judgements)
    assert [(f.place.line, f.name) for f in findings] == [
        (3, "duplicate-id"), (4, "empty-content"), (5, "missing-field"),
        (3, "unknown-id"), (4, "unknown-id"), (5, "wrong-score"),
    ]  # fmt: skip


def test_a_title_alone_is_a_text(tmp_path: Path) -> None:
    corpus: Rows = [{"_id": "d1", "text": "", "title": "One"}]
    found, findings = collection(tmp_path, corpus, QUERIES, HEADER + "q1\td1\t2\n")
    assert found.texts == {"d1": "One"}
    assert not findings


def test_queries_that_nothing_answers_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no query has a text that answers it"):
        collection(tmp_path, CORPUS, QUERIES, HEADER)


def test_held_out_pairs_are_a_collection_of_their_own(tmp_path: Path) -> None:
    rows: Rows = [
        {"anchor": "a", "positive": "b", "negative": "n"}, {"anchor": "c", "positive": "b"},
        {"anchor": "a", "positive": "d"},
    ]  # fmt: skip
    dataset, _ = read(tmp_path, rows)
    found = collection_of(dataset.train)
    assert list(found.texts.values()) == ["b", "n", "d"]
    by_text = {q.text: {found.texts[name] for name, _ in q.relevant} for q in found.queries}
    assert by_text == {"a": {"b", "d"}, "c": {"b"}}


def test_held_out_numbers_are_numbers(tmp_path: Path) -> None:
    train: Rows = [{"text": f"t{i}", "label": i + 0.5} for i in range(30)]
    data = Data(
        train=written(tmp_path, train, "train.jsonl"),
        test=written(tmp_path, [{"text": "x", "label": "N/A"}], "test.jsonl"),
    )
    (error,) = [f for f in read_dataset(data).findings if f.severity == "error"]
    assert str(error).startswith(f"{tmp_path}/test.jsonl:1 label is 'N/A'; expected a number")


def test_held_out_rows_that_contradict_each_other_are_found_too(tmp_path: Path) -> None:
    train: Rows = [{"text": f"t{i}", "label": "ab"[i % 2]} for i in range(30)]
    test: Rows = [{"text": "same", "label": "a"}, {"text": "Same", "label": "b"}]
    data = Data(
        train=written(tmp_path, train, "train.jsonl"), test=written(tmp_path, test, "test.jsonl")
    )
    found = [f for f in read_dataset(data).findings if f.name == "contradicting-labels"]
    assert [str(f.place) for f in found] == [f"{tmp_path}/test.jsonl:2"]
