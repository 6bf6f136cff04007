"""Files become rows; everything wrong with them is listed with its line."""

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data import Finding, Row
from luthier.data.reading import MAX_ROW_BYTES, read_rows
from luthier.errors import DataError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ROWS = st.lists(st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}), min_size=1, max_size=5)


def read(path: Path) -> tuple[list[Row], list[Finding]]:
    findings: list[Finding] = []
    return list(read_rows(path, findings.append)), findings


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
@given(rows=ROWS)
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"rows{suffix}"
    write(path, rows)
    found, findings = read(path)
    assert [row.fields for row in found] == rows
    assert findings == []
    assert all(row.place.file == str(path) for row in found)


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n[1]\n{"a": 2}\r\n"x"\n{"b": NaN}\n{"c": "\xff"}'
    )
    rows, findings = read(path)
    assert [(row.place.line, row.fields) for row in rows] == [(1, {"a": 1}), (5, {"a": 2})]
    assert [(f.place.line, f.name) for f in findings] == [
        (3, "broken-json"), (4, "not-an-object"), (6, "not-an-object"),
        (7, "broken-json"), (8, "wrong-encoding"),
    ]  # fmt: skip
    assert "NaN" in str(findings[3])
    assert "byte 7" in str(findings[4])


def test_a_row_of_a_csv_that_spans_lines_is_placed_at_its_first(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,completion\n"a\nb",c\nd,e\nf\n')
    rows, findings = read(path)
    assert [(row.place.line, row.fields["prompt"]) for row in rows] == [(2, "a\nb"), (4, "d")]
    assert [(f.place.line, f.name) for f in findings] == [(5, "uneven-row")]


def test_a_row_that_is_far_too_large_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "' + "x" * MAX_ROW_BYTES + '"}\n{"a": 1}\n')
    rows, findings = read(path)
    assert len(rows) == 1
    assert findings[0].name == "row-too-large"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", None, "does not exist"),
        ("rows.jsonl", b"", "is empty"),
        ("rows.txt", b"x", r"is a \.txt file; expected \.jsonl"),
        ("rows", b"x", "nameless file"),
        ("rows.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16"),
        ("rows.json", b"{", r"rows\.json:1: is broken JSON"),
        ("rows.json", b'{"a": 1}', "holds a JSON dict; expected an array"),
        ("rows.json", b"[]", "holds no row"),
        ("rows.json", b'[{"a": NaN}]', "holds NaN"),
        ("rows.json", b"\xff", r"rows\.json:1: byte 0 is not UTF-8"),
        ("rows.csv", b"a,a\n1,2\n", "a distinct, non-empty name"),
        ("rows.csv", b'a,b\n"1,2', "is broken CSV"),
        ("rows.parquet", b"PAR1 cut short", "is no readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_rows_is_one_error(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"the folder holds train\.jsonl"):
        read(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)


@given(st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_rows_findings_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    for suffix in (".jsonl", ".json", ".csv"):
        path = folder / f"rows{suffix}"
        path.write_bytes(content)
        try:
            read(path)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017 - an error is one of the good outcomes


def compress(path: Path, content: bytes) -> Path:
    kind = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}[path.suffix]
    with pyarrow.output_stream(str(path), compression=kind) as file:
        file.write(content)
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (".jsonl", b'{"a": "1"}\n{"a": "2"}\n'), (".csv", b"a\n1\n2\n"),
        (".json", b'[{"a": "1"}, {"a": "2"}]'),
    ],
)  # fmt: skip
def test_compressed_files_are_read(tmp_path: Path, kind: str, content: bytes, suffix: str) -> None:
    path = compress(tmp_path / f"rows{kind}{suffix}", content)
    rows, findings = read(path)
    assert [row.fields for row in rows] == [{"a": "1"}, {"a": "2"}]
    assert not findings
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot be read|is broken|holds"):
        read(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_line_of_any_size_takes_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with opened_to_write(path) as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(200):
            file.write(b"x" * 10**6)
        file.write(b'"}\n{"a": 2}\n')
    tracemalloc.start()
    rows, findings = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6
    assert [row.fields for row in rows] == [{"a": 1}, {"a": 2}]
    assert [row.place.line for row in rows] == [1, 3]
    assert [str(f) for f in findings] == [
        f"{path}:2 is 200.0 MB large; expected at most 5 MB a row"
    ]


def opened_to_write(path: Path) -> Any:
    return gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb")


def test_cells_and_line_ends_of_a_csv_may_be_of_any_kind(tmp_path: Path) -> None:
    long = "x" * 300_000
    for end in ("\n", "\r\n", "\r"):
        path = tmp_path / "rows.csv"
        path.write_bytes(f'a,b{end}1,{long}{end}"2{end}3",4{end}'.encode())
        rows, findings = read(path)
        assert [row.fields for row in rows] == [{"a": "1", "b": long}, {"a": f"2{end}3", "b": "4"}]
        assert [row.place.line for row in rows] == [2, 3]
        assert not findings
    path.write_bytes(b'a,b\n1,"' + b"x\n" * 4_000_000)
    with pytest.raises(DataError, match="is broken CSV: field larger than field limit"):
        read(path)


def test_a_key_that_stands_twice_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"b": [{"label": "x", "text": "\\"a\\": 1", "label": "y"}]}\n')
    rows, (finding,) = read(path)
    assert len(rows) == 1
    assert str(finding).startswith(f"{path}:2 holds the key 'label' twice; expected plain JSON")


@pytest.mark.parametrize(
    ("value", "said"),
    [("9" * 5000, "thousands of digits"), ("[" * 100_000, "nested too deeply")],
)
def test_numbers_of_thousands_of_digits_and_deep_nesting_are_said(
    tmp_path: Path, value: str, said: str
) -> None:
    lines, array = tmp_path / "rows.jsonl", tmp_path / "rows.json"
    lines.write_text(f'{{"text": {value}}}')
    array.write_text(f'[{{"text": {value}}}]')
    findings: list[Finding] = []
    assert list(read_rows(lines, findings.append)) == []
    assert said in str(findings[0])
    with pytest.raises(DataError, match=said):
        list(read_rows(array, findings.append))
