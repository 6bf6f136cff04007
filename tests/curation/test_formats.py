"""The fast check of a format finds what reading the rows finds."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.curation import formats
from luthier.curation.formats import check_format
from luthier.data import Finding, RowReader, read_rows, reading
from luthier.errors import DataError

GOOD = json.dumps(
    {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}
)
LINES = st.sampled_from(
    [GOOD, GOOD.replace("a b", ":)"), GOOD[:-3], "", " ", "[]", '{"text": "x", "label": "y"}',
     "null", GOOD.replace("assistant", "boss"), GOOD.replace('"c"', '" "'),
     GOOD.replace("{", '{"id": 7, ', 1), GOOD.replace("a b", "a" * 300),
     '{"messages": [], "messages": []}', "\xff", GOOD + "\r", "{}"]
)  # fmt: skip


def slowly(path: Path) -> tuple[int, list[Finding]]:
    findings: list[Finding] = []
    reader = RowReader(findings.append)
    for row in read_rows(path, findings.append):
        reader.example(row)
    return reader.num_rows, findings


def quickly(path: Path) -> tuple[int, list[Finding]]:
    findings: list[Finding] = []
    return check_format(path, findings.append), findings


def outcome(read: Any, path: Path) -> Any:
    try:
        number, findings = read(path)
    except DataError as error:
        return str(error)
    # What is expected is told by the rows before, which a part of a file does not know.
    return number, sorted((f.place.line, f.name, f.field, f.found) for f in findings)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=30), st.integers(20, 400), st.booleans(), st.booleans())
def test_it_finds_what_reading_finds(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], part: int, ends: bool, bom: bool
) -> None:
    place = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    text = "\n".join(lines) + ("\n" if ends else "")
    place.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode("latin-1"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(formats, "PART", part)
        patched.setattr(formats, "MAX_ROW_BYTES", 250)
        patched.setattr(reading, "MAX_ROW_BYTES", 250)
        assert outcome(quickly, place) == outcome(slowly, place)


def test_several_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [GOOD] * 5000
    lines[17], lines[3000] = GOOD[:-2], '{"text": "x", "label": "y"}'
    place = tmp_path / "rows.jsonl"
    place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    monkeypatch.setattr(formats, "WORTH_IT", 1)
    monkeypatch.setattr(formats, "PART", 50_000)
    monkeypatch.setattr(formats, "num_cores", lambda: 2)
    number, findings = quickly(place)
    assert (number, [finding.place.line for finding in findings]) == (4999, [18, 3001])
    assert outcome(quickly, place) == outcome(slowly, place)


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.jsonl.gz"])
def test_other_files_are_read_as_ever(tmp_path: Path, name: str) -> None:
    import gzip

    place = tmp_path / name
    content = {
        "rows.csv": b"text,label\na,b\nc,\n", "rows.json": f"[{GOOD}, {GOOD}]".encode(),
        "rows.jsonl.gz": gzip.compress(f"{GOOD}\n{GOOD[:-1]}\n".encode()),
    }[name]  # fmt: skip
    place.write_bytes(content)
    assert outcome(quickly, place) == outcome(slowly, place)
