"""A teacher makes rows: marked, unlike others, away from the test; asked by the real client."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoint import Body, completion, serving
from luthier.curation import Growth, TeacherError, grow_version, split_version
from luthier.curation.growing import MARK
from luthier.data import Message
from luthier.errors import ConfigError
from luthier.pipeline import open_teacher
from luthier.pipeline.teaching import EndpointTeacher
from luthier.runs import Datasets, NewRow, Origin, Version

WORDS = (
    "harbour",
    "lantern",
    "orchard",
    "thunder",
    "meadow",
    "candle",
    "copper",
    "window",
    "river",
)


def rows(number: int = 30) -> list[dict[str, Any]]:
    return [
        {"messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"What of {WORDS[i % 9]} and {WORDS[i // 9]}, {i}?"},
            {"role": "assistant", "content": f"It is number {i}."},
        ], "id": f"r{i}"}
        for i in range(number)
    ]  # fmt: skip


def kept(tmp_path: Path, own: Sequence[dict[str, Any]]) -> tuple[Datasets, Version]:
    datasets = Datasets(tmp_path / "workspace")
    new = (NewRow(fields, None, f"made:{i}") for i, fields in enumerate(own))
    version, _ = datasets.add("rows", new, Origin("test"))
    return datasets, split_version(datasets, version).version


class Scripted:
    """Answers by a rule, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, rule: Callable[[str], str]) -> None:
        self.rule, self.asked = rule, list[tuple[Message, ...]]()

    def answer(self, messages: Sequence[Message]) -> str:
        self.asked.append(tuple(messages))
        return self.rule(messages[-1].content)


def otherwise(text: str) -> str:
    return f"Could you please tell me everything that is known about this: {text.split()[-2:]}"


def test_rows_are_asked_in_other_words(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, rows())
    teacher = Scripted(otherwise)
    done = grow_version(datasets, version, teacher, Growth("paraphrase", limit=10))
    assert done.num_new == 10
    assert done.version.splits["test"] == version.splits["test"]
    assert done.version.splits["train"] == version.splits["train"] + 10
    before = [row.fields for row in datasets.content(version).rows()]
    after = list(datasets.content(done.version).rows())
    assert [row.fields for row in after[: len(before)]] == before
    for row in after[len(before) :]:
        assert row.split == "train"
        assert row.fields[MARK] == "paraphrase by scripted"
        assert row.fields["messages"][0] == before[0]["messages"][0]
        assert row.fields["messages"][1]["content"].startswith("Could you please")
        assert "id" not in row.fields
        assert row.origin.startswith("made:")
    held = {row.fields["messages"][1]["content"] for row in after if row.split == "test"}
    assert not any(question in asked[-1].content for asked in teacher.asked for question in held)
    again = grow_version(
        datasets, done.version, Scripted(otherwise), Growth("paraphrase", limit=20)
    )
    assert not any("Could you" in asked[-1].content for asked in teacher.asked), again


def test_a_teacher_answers_and_makes_harder_rows(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, rows())
    done = grow_version(
        datasets, version, Scripted(lambda text: f"Better: {text}"), Growth("answer")
    )
    new = [row.fields for row in datasets.content(done.version).rows() if MARK in row.fields]
    assert len(new) == version.splits["train"]
    assert all(
        fields["messages"][-1]["content"] == f"Better: {fields['messages'][1]['content']}"
        for fields in new
    )
    hard = Scripted(lambda text: 'Sure: {"question": "Quite new?", "answer": {"n": 1}}')
    done = grow_version(datasets, version, hard, Growth("hard", limit=1, instructions="Be odd."))
    assert hard.asked[0][0] == Message("system", "Be odd.")
    assert hard.asked[0][-1].content.count('"question"') == 4
    (made,) = (row.fields for row in datasets.content(done.version).rows() if MARK in row.fields)
    assert made["messages"][-1] == {"role": "assistant", "content": '{"n": 1}'}


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (lambda text: "", "empty"),
        (lambda text: "I'm sorry, but I can't help with that.", "refused"),
        (lambda text: text.rpartition("\n")[2], "asking what a row that is there asks"),
        (lambda text: f"Rewrite the request: {text[-9:]}", "repeating what was asked, or itself"),
        (lambda text: "And so on.\n\n" * 3, "repeating what was asked, or itself"),
    ],
)
def test_what_is_no_new_row_is_counted(
    tmp_path: Path, rule: Callable[[str], str], reason: str
) -> None:
    datasets, version = kept(tmp_path, rows())
    with pytest.raises(ConfigError, match=f"no new row came of it: 5 {reason}"):
        grow_version(datasets, version, Scripted(rule), Growth("paraphrase", limit=5))
    assert datasets.log("rows")[-1] == version


def test_nothing_near_a_held_out_row_is_made(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, rows())
    held = [r.fields["messages"][1]["content"] for r in datasets.content(version).rows()
            if r.split == "test"]  # fmt: skip
    with pytest.raises(ConfigError, match="5 near a held-out row"):
        grow_version(datasets, version, Scripted(lambda text: held[0].upper()),
                     Growth("paraphrase", limit=5))  # fmt: skip


def test_rows_that_are_not_parted_are_not_grown(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    version, _ = datasets.add("rows", (NewRow(r, None, "x") for r in rows()), Origin("test"))
    with pytest.raises(ConfigError, match="first: luthier data split rows@1"):
        grow_version(datasets, version, Scripted(otherwise), Growth("paraphrase"))
    with pytest.raises(ConfigError, match="paraphrase, answer, hard"):
        Growth("better")
    with pytest.raises(ConfigError, match="copies"):
        Growth("hard", copies=0)


def test_answers_are_kept_when_it_is_broken_off(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, rows())
    teacher = Scripted(otherwise)

    def broken(text: str) -> str:
        if len(teacher.asked) > 7:
            raise KeyboardInterrupt
        return otherwise(text)

    teacher.rule = broken
    with pytest.raises(KeyboardInterrupt):
        grow_version(datasets, version, teacher, Growth("paraphrase", at_once=1))
    assert datasets.log("rows")[-1] == version
    second = Scripted(otherwise)
    done = grow_version(datasets, version, second, Growth("paraphrase", at_once=1))
    assert len(second.asked) == version.splits["train"] - 7
    assert done.num_new == version.splits["train"]


def test_a_teacher_that_fails_now_and_then_is_asked_again_the_next_time(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, rows())
    turn = iter(range(1000))

    def now_and_then(text: str) -> str:
        if next(turn) % 2:
            raise TeacherError("too busy")
        return otherwise(text)

    done = grow_version(
        datasets, version, Scripted(now_and_then), Growth("paraphrase", limit=10, at_once=1)
    )
    assert done.dropped == {"failed": 5}
    rest = Scripted(otherwise)
    grow_version(datasets, version, rest, Growth("paraphrase", limit=10, at_once=1))
    assert len(rest.asked) == 5


@pytest.fixture
def endpoint() -> Iterator[str]:
    pytest.importorskip("openai", reason="the client of the endpoint")

    def answer(asked: Body) -> Body | int:
        said = otherwise(asked["messages"][-1]["content"])
        reason = "length" if "harbour" in said else "stop"
        return completion(asked, said, reason) if server.keys[-1] == "Bearer right" else 401

    with serving(answer) as server:
        yield server.url


@pytest.mark.enable_socket
def test_a_teacher_behind_an_address_is_asked_by_the_real_client(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets, version = kept(tmp_path, rows())
    monkeypatch.setenv("LUTHIER_ENDPOINT_KEY", "right")
    teacher = open_teacher("big-model", endpoint, tmp_path)
    done = grow_version(datasets, version, teacher, Growth("paraphrase", copies=2, at_once=4))
    assert done.version.details["teacher"] == "big-model"
    assert done.num_new + sum(done.dropped.values()) == 2 * version.splits["train"]
    monkeypatch.setenv("LUTHIER_ENDPOINT_KEY", "wrong")
    with pytest.raises(ConfigError, match=r"answers 401.*check the model and the key") as raised:
        grow_version(datasets, version, open_teacher("other", endpoint, tmp_path), Growth("answer"))
    assert "wrong" not in str(raised.value)


@pytest.mark.enable_socket
def test_an_address_where_nobody_is_stops_the_work(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the client of the endpoint")
    datasets, version = kept(tmp_path, rows(12))
    teacher = open_teacher("m", "http://127.0.0.1:9/v1", tmp_path)
    assert isinstance(teacher, EndpointTeacher)
    client = teacher.endpoint.client.with_options(max_retries=0)
    teacher = replace(teacher, endpoint=replace(teacher.endpoint, client=client))
    with pytest.raises(ConfigError, match="cannot be reached"):
        grow_version(datasets, version, teacher, Growth("answer", limit=2))
