"""What is told at once to be right, the slow reader finds nothing wrong with."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.data import Finding, Place, Row, RowReader, parse_line, quick
from luthier.data.quick import KINDS, Quick, quick_for

TEXTS = st.lists(
    st.sampled_from(["a", '"', ":", '":', "\\", " ", "\n", "\t", "é", "\ud800", "{", "}", ","]),
    max_size=4,
).map("".join)
ANY = TEXTS | st.none() | st.integers() | st.booleans()
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "boss"])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": ANY}, optional={"name": TEXTS}), max_size=4
)
ROWS = st.one_of(
    st.fixed_dictionaries({"messages": MESSAGES}, optional={"id": TEXTS}),
    *(st.fixed_dictionaries(dict.fromkeys(sorted(fields), ANY))
      for fields in KINDS if "messages" not in fields),
)  # fmt: skip


def findings_of(line: bytes) -> list[Finding]:
    findings: list[Finding] = []
    fields = parse_line(Place("x", 1), line, findings.append)
    if fields is not None:
        RowReader(findings.append).example(Row(Place("x", 1), fields))
    return findings


def is_sure(line: bytes) -> bool:
    return any(known.is_right(line) for known in kinds())


def kinds() -> list[Quick]:
    return [known for known in map(quick_for, KINDS) if known is not None]


@settings(max_examples=500)
@given(ROWS, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]), st.data())
def test_what_is_sure_is_right(
    row: Any, is_ascii: bool, separators: tuple[str, str], data: st.DataObject
) -> None:
    text = json.dumps(row, ensure_ascii=is_ascii, separators=separators)
    line = text.encode("utf-8", "surrogatepass")
    if data.draw(st.booleans()):  # a piece of it once more, or one less
        start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(line))] * 2)))
        middle = b"" if data.draw(st.booleans()) else line[start:end] * 2
        line = line[:start] + middle + line[end:]
    if is_sure(line):
        assert findings_of(line) == []


@settings(max_examples=300)
@given(st.sampled_from(sorted(KINDS, key=sorted)), st.lists(TEXTS, min_size=3, max_size=3),
       st.sampled_from(["", " ", "\t", "\n"]), st.permutations(range(4)))  # fmt: skip
def test_a_key_that_stands_twice_is_never_sure(
    fields: frozenset[str], texts: list[str], space: str, order: list[int]
) -> None:
    names = sorted(fields)
    values = [json.dumps(text) for text in texts]
    if names == ["messages"]:
        turn = '[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]'
        values = [turn] * 3
    pairs = [f'"{name}"{space}:{value}' for name, value in zip(names, values, strict=False)]
    pairs.append(f'"{names[0]}":{values[0]}')
    shuffled = [pairs[i] for i in order if i < len(pairs)]
    line = f"{{{','.join(shuffled)}}}".encode("utf-8", "surrogatepass")
    if len(shuffled) == len(pairs):
        assert not is_sure(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}',
         True),
        ('{"messages":[{"role":"user","content":"{\\"a\\": 1}"},'
         '{"role":"assistant","content":"b"}]}', True),
        ('{"messages":[{"role":"user","content":":)"},{"role":"assistant","content":"b"}]}', True),
        ('{"prompt":  ":)", "completion": "b"}', False),
        ('{"messages":[{"role":"assistant","content":"b"}]}', False),
        ('{"messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}', False),
        ('{"prompt": "a", "completion": "b"}', True),
        ('{"prompt": "a", "completion": " "}', False),
        ('{"prompt" : "a", "prompt": "b", "completion": "c"}', False),
        ('{"prompt": "a", "chosen": "b", "rejected": "b "}', False),
        ('{"text": "a", "label": "b"}', True),
        ('{"text": "a", "label": 1}', False),
    ],
)  # fmt: skip
def test_single_lines(line: str, expected: bool) -> None:
    assert is_sure(line.encode()) == expected


@settings(max_examples=500)
@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from(["\n", "\n\n", "", " ", "\r\n"]),
       st.data())  # fmt: skip
def test_lines_are_right_together_if_each_is(
    rows: list[Any], end: str, data: st.DataObject
) -> None:
    lines = "".join(json.dumps(row) + end for row in rows).encode() + b"\n"
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(lines)))
        lines = lines[:at] + data.draw(st.sampled_from([b"\n", b"}\n{", b" ", b'"'])) + lines[at:]
    for known in kinds():
        number = known.num_right(lines)
        if number:
            apart = lines.split(b"\n")
            assert apart.pop() == b""
            assert number == len(apart)
            assert all(findings_of(line) == [] for line in apart)


def test_right_lines_are_told_together() -> None:
    row = {"messages": [{"role": "user", "content": "a: b"}, {"role": "assistant", "content": "c"}]}
    lines = (json.dumps(row) + "\n").encode() * 9
    (known,) = [known for known in kinds() if known.is_right(lines[: lines.index(b"\n")])]
    assert known.num_right(lines) == 9
    assert known.num_right(lines[:-1]) == 0
    assert known.num_right(lines + b"\n") == 0
    assert known.num_right(lines + b'{"messages": []}\n') == 0


@settings(max_examples=500)
@given(st.lists(ROWS, min_size=1, max_size=3), st.booleans(),
       st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))  # fmt: skip
def test_colons_of_many_lines_are_those_of_one(
    rows: list[Any], is_ascii: bool, separators: tuple[str, str]
) -> None:
    texts = [json.dumps(row, ensure_ascii=is_ascii, separators=separators) for row in rows]
    lines = "\n".join(texts).encode("utf-8", "surrogatepass") + b"\n"
    assert quick._num_colons_of_many(lines) == quick._num_colons(lines)
