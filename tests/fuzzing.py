"""Bytes that nobody thought of, by coverage (atheris): rows are read, or it is said what is wrong.

    pip install -e '.[fuzz]' && python tests/fuzzing.py -max_total_time=600

The first byte chooses what the others are: a file of one of the kinds, or lines for the quick
check, whose answer must be the slow one's. Anything but a LuthierError is a bug.
"""

import gzip
import json
import sys
import tempfile
from pathlib import Path

import atheris
import openpyxl
import pyarrow as pa
from pyarrow import parquet

with atheris.instrument_imports(include=["luthier.data", "luthier.curation"]):
    from luthier.curation.formats import check_format
    from luthier.curation.looking import FileSource, seen
    from luthier.data import Finding, RowReader, read_rows
    from luthier.errors import LuthierError

SUFFIXES = (".jsonl", ".json", ".csv", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow", ".xlsx")
FOLDER = Path(tempfile.mkdtemp(prefix="luthier-fuzz-"))


def one_input(data: bytes) -> None:
    """Read what the bytes are."""
    kind = data[0] % (len(SUFFIXES) + 1) if data else 0
    place = FOLDER / f"rows{SUFFIXES[kind] if kind < len(SUFFIXES) else '.jsonl'}"
    place.write_bytes(data[1:])
    if kind == len(SUFFIXES):
        assert outcome(place, quickly=True) == outcome(place, quickly=False)
        return
    try:
        for block in seen(FileSource({None: [place]}), lambda finding: None):
            for row in block:
                list(row.all_texts)
    except LuthierError:
        return


def seeds() -> Path:
    """A folder with small right files of every kind, to begin with."""
    rows = [
        {"messages": [{"role": "user", "content": "a: b"}, {"role": "assistant", "content": "c"}]},
        {"prompt": "a", "completion": "b", "id": 7},
        {"text": "a \u00e9", "label": ["x", "y"]},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"contents": [{"role": "user", "parts": [{"text": "a"}]}]},
    ]
    folder = FOLDER / "seeds"
    folder.mkdir()
    table = pa.Table.from_pylist([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}])
    parquet.write_table(table, folder / "rows.parquet")
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    book = openpyxl.Workbook()
    assert book.active is not None
    for cells in (["text", "label"], ["a", "x"], ["b", 3]):
        book.active.append(cells)
    book.save(folder / "rows.xlsx")
    files = {path.suffix: path.read_bytes() for path in [*folder.iterdir()]}
    for path in [*folder.iterdir()]:
        path.unlink()
    for number, row in enumerate(rows):
        line = json.dumps(row).encode() + b"\n"
        files |= {f".jsonl{number}": line * 2, f".json{number}": b"[" + line + b"]"}
        files[f".jsonl.gz{number}"] = gzip.compress(line)
    files[".csv"] = b'text,label\n"a, ""b""",x\nb,y\n'
    for name, content in files.items():
        kind = SUFFIXES.index(name.rstrip("0123456789"))
        (folder / name[1:]).write_bytes(bytes([kind]) + content)
        if kind == 0:
            (folder / f"quick-{name[1:]}").write_bytes(bytes([len(SUFFIXES)]) + content)
    return folder


def outcome(place: Path, *, quickly: bool) -> object:
    """How many rows there are, and on which lines something is wrong."""
    findings: list[Finding] = []
    try:
        if quickly:
            number = check_format(place, findings.append)
        else:
            reader = RowReader(findings.append)
            for row in read_rows(place, findings.append):
                reader.example(row)
            number = reader.num_rows
    except LuthierError as error:
        return str(error)
    return number, sorted((f.place.line, f.name, f.field, f.found) for f in findings)


if __name__ == "__main__":
    atheris.Setup([*sys.argv, str(seeds())], one_input)
    atheris.Fuzz()
