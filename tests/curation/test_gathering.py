"""Rows come from folders, addresses and sheets, each with the split that its name says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import fsspec
import openpyxl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.chart import BarChart
from pyarrow import parquet

from luthier.curation import add_files
from luthier.curation.gathering import gathered
from luthier.data import read_rows, reading
from luthier.errors import ConfigError, DataError, LuthierError
from luthier.runs import Datasets

ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(6)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows_of(folder: Path, source: str, **how: Any) -> list[tuple[Any, str | None, str]]:
    datasets = Datasets(folder / "workspace")
    version, _ = add_files(datasets, "rows", {None: [source]}, **how)
    return [(r.fields, r.split, r.origin) for r in datasets.content(version).rows()]


def test_a_folder_of_the_hub_is_parted_as_its_files_are_named(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    (hub / "data").mkdir(parents=True)
    (hub / ".cache").mkdir()
    for name, some in (("train-00000-of-00002", ROWS[:2]), ("train-00001-of-00002", ROWS[2:4]),
                       ("validation-00000-of-00001", ROWS[4:5]),
                       ("test-00000-of-00001", ROWS[5:])):  # fmt: skip
        parquet.write_table(pa.Table.from_pylist(some), hub / "data" / f"{name}.parquet")
    (hub / "dataset_info.json").write_text("{}", encoding="utf-8")
    (hub / "train.jsonl").write_text(lines(ROWS), encoding="utf-8")
    (hub / ".cache" / "old.jsonl").write_text(lines(ROWS), encoding="utf-8")
    found = rows_of(tmp_path, str(hub))
    assert [(fields, split) for fields, split, _ in found] == [
        *((row, "test") for row in ROWS[5:]), *((row, "train") for row in ROWS[:4]),
        *((row, "validation") for row in ROWS[4:5]),
    ]  # fmt: skip


def test_what_datasets_saved_to_disk_is_read(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    for split, some in (("train", ROWS[:4]), ("test", ROWS[4:])):
        (saved / split).mkdir(parents=True)
        table = pa.Table.from_pylist(some)
        place = saved / split / "data-00000-of-00001.arrow"
        with pa.OSFile(str(place), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        (saved / split / "state.json").write_text("{}", encoding="utf-8")
    (saved / "dataset_dict.json").write_text('{"splits": ["train", "test"]}', encoding="utf-8")
    found = rows_of(tmp_path, str(saved))
    assert sorted((f["text"], s) for f, s, _ in found) == [
        (row["text"], "train" if i < 4 else "test") for i, row in enumerate(ROWS)
    ]


def test_addresses_are_fetched_and_named(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/rows.jsonl", lines(ROWS).encode())
    memory.pipe("/bucket/set/train/a.jsonl", lines(ROWS[:3]).encode())
    memory.pipe("/bucket/set/test/a.jsonl", lines(ROWS[3:]).encode())
    one = rows_of(tmp_path, "memory://bucket/rows.jsonl")
    assert [f for f, _, _ in one] == ROWS
    assert one[2][1:] == (None, "memory://bucket/rows.jsonl:3")
    whole = rows_of(tmp_path, "memory://bucket/set")
    assert [(f, s) for f, s, _ in whole] == [
        *((row, "test") for row in ROWS[3:]), *((row, "train") for row in ROWS[:3]),
    ]  # fmt: skip
    some = rows_of(tmp_path, "memory://bucket/set/*/a.jsonl")
    assert len(some) == 6
    memory.pipe("/test-bucket/dev/a.jsonl", lines(ROWS).encode())
    memory.pipe("/test-bucket/b/c.jsonl", lines(ROWS).encode())
    assert {s for _, s, _ in rows_of(tmp_path, "memory://test-bucket/b/*.jsonl")} == {None}
    assert {s for _, s, _ in rows_of(tmp_path, "memory://test-bucket/b")} == {None}
    assert {s for _, s, _ in rows_of(tmp_path, "memory://test-bucket/*/a.jsonl")} == {"validation"}
    memory.pipe("/bucket/broken.jsonl", b'{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=r"memory://bucket/broken.jsonl:2 is broken JSON"):
        rows_of(tmp_path, "memory://bucket/broken.jsonl")


class _Quiet(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/forbidden"):
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="fsspec fetches by HTTP with aiohttp")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "rows.jsonl").write_text(lines(ROWS), encoding="utf-8")
    handler = partial(_Quiet, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.enable_socket
def test_rows_come_over_http(tmp_path: Path, web: str) -> None:
    assert [f for f, _, _ in rows_of(tmp_path, f"{web}/rows.jsonl")] == ROWS
    for name, status in (("nothing", 404), ("forbidden", 403)):
        with pytest.raises(LuthierError, match=f"cannot be fetched: status {status}"):
            rows_of(tmp_path, f"{web}/{name}.jsonl")
    with pytest.raises(LuthierError, match="cannot be fetched: ConnectionRefusedError"):
        rows_of(tmp_path, "http://127.0.0.1:9/rows.jsonl")


@pytest.mark.enable_socket
def test_what_an_address_says_in_secret_is_not_kept(tmp_path: Path, web: str) -> None:
    host = web.removeprefix("http://")
    found = rows_of(tmp_path, f"http://me:hunter2@{host}/rows.jsonl?token=hunter2&x=1")
    assert [(f, origin) for f, _, origin in found] == [
        (row, f"{web}/rows.jsonl:{n}") for n, row in enumerate(ROWS, 1)
    ]
    assert "hunter2" not in json.dumps(Datasets(tmp_path / "workspace").log("rows")[-1].details)
    with pytest.raises(LuthierError) as raised:
        rows_of(tmp_path, f"http://me:hunter2@{host}/nothing.jsonl?token=hunter2")
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere://bucket/rows.jsonl", "expected https://, s3://, gs://, hf:ORG/NAME or a file"),
        ("memory://bucket/nothing", "nothing"),
        ("empty", "holds no rows"),
        ("", "is empty; expected a file, folder or address"),
        ("nothing.jsonl", "does not exist"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.md").write_text("none", encoding="utf-8")
    with pytest.raises(LuthierError, match=said):
        rows_of(tmp_path, source)


def test_what_was_fetched_goes_away() -> None:
    fsspec.filesystem("memory").pipe("/bucket/rows.jsonl", lines(ROWS).encode())
    with gathered(["memory://bucket/rows.jsonl"]) as found:
        place = found[0].path
        assert place.is_file()
    assert not place.exists()


def test_a_sheet_is_read_and_its_columns_are_named_anew(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for cells in (["Question", "Reply", "Stars", None], ["how?", "so", 4, None], [None, None],
                  ["=1+1", "two", 4.5], ["when?", None, True]):  # fmt: skip
        sheet.append(cells)
    book.save(tmp_path / "rows.xlsx")
    found = rows_of(tmp_path, str(tmp_path / "rows.xlsx"),
                    columns={"prompt": "Question", "completion": "Reply"})  # fmt: skip
    assert found[0][0] == {"prompt": "how?", "completion": "so", "Stars": 4}
    assert found[0][2].endswith("rows.xlsx:2")
    assert [fields for fields, _, _ in found[1:]] == [
        {"completion": "two", "Stars": 4.5}, {"prompt": "when?", "Stars": True},
    ], "a formula that nobody computed has no value"  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"prompt": "Query"}, "has no column 'Query'; expected label, text"),
        ({"label": "text"}, "would have two columns 'label'"),
    ],
)
def test_columns_that_are_not_there_are_said(
    tmp_path: Path, columns: dict[str, str], said: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(lines(ROWS), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        rows_of(tmp_path, str(tmp_path / "rows.jsonl"), columns=columns)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"text"])
def test_broken_books_and_streams_are_said(tmp_path: Path, content: bytes) -> None:
    for name in ("rows.xlsx", "rows.arrow"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            rows_of(tmp_path, str(tmp_path / name))


@pytest.mark.parametrize("byte", [0x00, 0x7F, 0xFF])
def test_a_damaged_stream_is_said_or_read(tmp_path: Path, byte: int) -> None:
    """Whatever one of its bytes is: offsets of texts among them, which once ended the process."""
    table = pa.Table.from_pylist([{"text": "ab", "label": "x"}, {"text": "c", "label": "y"}])
    place = tmp_path / "rows.arrow"
    with pa.OSFile(str(place), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    content = place.read_bytes()
    for at in range(len(content)):
        place.write_bytes(content[:at] + bytes([byte]) + content[at + 1 :])
        with suppress(DataError):
            list(read_rows(place, print))


def a_book(path: Path, change: Callable[[str], str] = lambda sheet: sheet) -> Path:
    """A workbook of three rows, with the XML of its sheet changed."""
    book = openpyxl.Workbook()
    assert book.active is not None
    for cells in (["text", "label"], ["one", "a"], ["two", "b"], ["three", "a"]):
        book.active.append(cells)
    book.save(path.with_suffix(".whole.xlsx"))
    with ZipFile(path.with_suffix(".whole.xlsx")) as whole, ZipFile(path, "w") as made:
        for name in whole.namelist():
            content = whole.read(name).decode("utf-8")
            made.writestr(name, change(content) if name.endswith("sheet1.xml") else content)
    return path


def test_a_sheet_that_is_wrong_about_its_size_is_read_whole(tmp_path: Path) -> None:
    path = a_book(tmp_path / "rows.xlsx", lambda xml: xml.replace('ref="A1:B4"', 'ref="A1:A2"'))
    assert [f["text"] for f, _, _ in rows_of(tmp_path, str(path))] == ["one", "two", "three"]


def test_cells_without_a_name_are_not_lost_in_silence(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for cells in (["text", "label"], ["one", "a"], ["two", "b", "more"]):
        book.active.append(cells)
    book.save(tmp_path / "rows.xlsx")
    with pytest.raises(DataError, match=r"rows.xlsx:3 has cells beyond the 2 columns"):
        rows_of(tmp_path, str(tmp_path / "rows.xlsx"))


def test_a_book_of_charts_has_no_rows(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_chartsheet().add_chart(BarChart())
    book.remove(book.worksheets[0])
    book.save(tmp_path / "rows.xlsx")
    with pytest.raises(DataError, match="has no sheet with cells"):
        rows_of(tmp_path, str(tmp_path / "rows.xlsx"))


def test_a_book_that_grows_when_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_WHOLE_BYTES", 5000)
    with pytest.raises(DataError, match=r"expected 5,000 at most; write the rows as JSONL"):
        list(read_rows(a_book(tmp_path / "rows.xlsx", lambda xml: xml + " " * 9000), print))


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 10_000), kept=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_book_is_said_or_read(
    tmp_path_factory: pytest.TempPathFactory, place: int, kept: int, byte: int
) -> None:
    folder = tmp_path_factory.mktemp("book")
    content = bytearray(a_book(folder / "rows.xlsx").read_bytes())
    content[place % len(content)] = byte
    (folder / "rows.xlsx").write_bytes(bytes(content))
    cut = a_book(folder / "cut.xlsx", lambda xml: xml[:kept] + xml[kept + 3 :])
    for path in (folder / "rows.xlsx", cut):
        findings: list[Any] = []
        try:
            list(read_rows(path, findings.append))
        except DataError as error:
            findings.append(error)
        assert all(path.name in str(finding) for finding in findings)
