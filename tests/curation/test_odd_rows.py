"""Whatever rows hold, checks end with findings, and their report can be written."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.curation import FileSource, Options, as_json, check_rows, data_report
from luthier.errors import DataError
from luthier.report import render_data_page

ODD = st.sampled_from(
    ["", " ", "\0", "\ud800", "\u202e", "Ã©", "{", '{"a": 1}', "[]", "```", "<b>", "</b><b>",
     "a" * 300,
     "I'm sorry, I can't help.", "x@y.de", "4111 1111 1111 1111", "+49 30 901820", "-----BEGIN",
     "-----BEGIN RSA PRIVATE KEY-----", "://a:b@c", "word " * 60, "\r\n", "\x1b[2J", "%s",
     "{{ 1 }}",
     "\U0010ffff", "ﬁ", "e\u0301", "123-45-6789", "AKIAIOSFODNN7EXAMPLE", "<script>", "é" * 80]
)  # fmt: skip
TEXTS = st.lists(ODD | st.text(max_size=8), min_size=1, max_size=3).map(" ".join)
ANY = (
    TEXTS
    | st.none()
    | st.integers(-5, 5)
    | st.floats()
    | st.booleans()
    | st.lists(TEXTS, max_size=2)
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "boss"]), "content": ANY}
    ),
    max_size=4,
)
ROWS = st.one_of(
    st.fixed_dictionaries({"messages": MESSAGES}),
    st.fixed_dictionaries({"prompt": TEXTS, "completion": TEXTS}),
    st.fixed_dictionaries({"prompt": TEXTS, "chosen": TEXTS, "rejected": TEXTS}),
    st.fixed_dictionaries({"text": TEXTS}),
    st.fixed_dictionaries({"text": TEXTS, "label": ANY, "column": ANY}),
    st.fixed_dictionaries({"anchor": TEXTS, "positive": TEXTS}),
    st.fixed_dictionaries({"sentence1": TEXTS, "sentence2": TEXTS, "score": ANY}),
    st.dictionaries(st.text(max_size=4), ANY, max_size=3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, min_size=1, max_size=12), st.lists(ROWS, max_size=4), st.booleans())
def test_any_rows_are_checked_and_reported(
    rows: list[Any], held: list[Any], is_alike: bool
) -> None:
    # Of one layout many rows, so that what needs several of them is tried too.
    rows = [rows[0], *rows, *(rows[:1] * 20 if is_alike else ())]
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for split, some in (("train", rows), ("test", held)):
            if some:
                files[split] = [Path(folder) / f"{split}.jsonl"]
                lines = "".join(json.dumps(row, allow_nan=True) + "\n" for row in some)
                files[split][0].write_text(lines, encoding="utf-8")
        checked = check_rows(FileSource(files), Options(skip=["doubtful-labels"]))  # type: ignore[arg-type]
        report = data_report(checked, "rows", datetime(2026, 11, 22, tzinfo=UTC), lambda p: "fix")
        for text in (render_data_page(report), as_json(report)):
            (Path(folder) / "report").write_text(text, encoding="utf-8")
        json.loads(as_json(report))
        assert checked.num_rows <= len(rows) + len(held)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=80),
    st.sampled_from([".jsonl", ".json", ".csv", ".xlsx", ".arrow", ".parquet"]),
)
def test_any_bytes_are_checked_or_refused(content: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / f"rows{suffix}"
        place.write_bytes(content)
        try:
            check_rows(FileSource({None: [place]}))
        except DataError as error:
            assert str(place) in str(error)  # noqa: PT017 - an error is a good outcome


@pytest.mark.parametrize("rows", [[], [{"prompt": "a", "completion": "b"}]])
def test_hardly_any_rows_are_checked(tmp_path: Path, rows: list[Any]) -> None:
    place = tmp_path / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if not rows:
        with pytest.raises(DataError, match="is empty"):
            check_rows(FileSource({None: [place]}))
    else:
        assert check_rows(FileSource({None: [place]})).problems == ()
