"""Checks of datasets: each finds what was put there, and nothing in what is right."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from luthier.curation import CHECKS, Checked, FileSource, Options, as_json, check_rows, data_report
from luthier.data import Split
from luthier.errors import ConfigError, DataError
from luthier.report import render_data_page

TOPICS = (
    "the harbour",
    "an old clock",
    "wild garlic",
    "two bridges",
    "a paper boat",
    "slow trains",
)
DEFAULTS = Options()
VERBS = ("Describe", "Explain", "Summarise", "Praise", "Question")
ENDS = (
    "in spring",
    "for children",
    "at night",
    "by the sea",
    "without haste",
    "once more",
    "aloud",
)


def chats(number: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows that are all right, and all different."""
    return [
        {
            "messages": [
                {
                    "role": "user",
                    "content": f"{VERBS[i % 5]} {TOPICS[i // 5 % 6]} {ENDS[i % 7]} ({i})",
                },
                {
                    "role": "assistant",
                    "content": f"Here {i} words on {TOPICS[i // 5 % 6]}: they last {ENDS[i % 7]} "
                    f"and number {i * 7919 % 1000}, which is what {VERBS[i % 5].lower()} asks for.",
                },
            ]
        }
        for i in range(start, start + number)
    ]  # fmt: skip


def checked(
    folder: Path,
    rows: Sequence[Any],
    options: Options = DEFAULTS,
    **held_out: Sequence[Any],
) -> Checked:
    files: dict[Split | None, list[Path]] = {}
    for split, content in {"train": rows, **held_out}.items():
        place = folder / f"{split}.jsonl"
        lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in content]
        place.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
        files[split if held_out else None] = [place]  # type: ignore[index]
    return check_rows(FileSource(files), options)


def found(result: Checked) -> dict[str, list[int]]:
    return {problem.name: problem.positions.tolist() for problem in result.problems}


def answered(row: dict[str, Any], answer: str, question: str = "") -> dict[str, Any]:
    asked, said = row["messages"]
    content = question or asked["content"]
    return {"messages": [{**asked, "content": content}, {**said, "content": answer}]}


def test_nothing_is_found_in_what_is_right(tmp_path: Path) -> None:
    result = checked(tmp_path, chats(200), test=chats(40, 1000))
    assert found(result) == {}
    assert not result.has_errors
    assert result.splits == {"train": 200, "test": 40}
    assert result.lengths is not None
    assert sum(result.lengths.counts) == 240


Change = Callable[[list[dict[str, Any]]], None]


def planted(place: int, answer: str, question: str = "") -> Change:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[place] = answered(rows[place], answer, question)

    return change


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (planted(7, "I'm sorry, but I can't help with that."), "refusals", "says"),
        (planted(7, "As an AI language model, I like it."), "refusals", "As an AI"),
        (planted(7, "say this aloud", "Say this  ALOUD"), "copied-answers", "is the question"),
        (planted(7, "It was a long day at the harbour, and everybody who had come went to the"),
         "cut-off-answers", "'the'"),
        (planted(7, "Run this:\n```python\nprint(1)\n"), "broken-markup", "```"),
        (planted(7, "Write to anna.berg@firma.de then."), "personal-data", "1 EMAIL"),
        (planted(7, "Pay with 4111 1111 1111 1111."), "personal-data", "1 CARD"),
        (planted(7, "To DE89 3704 0044 0532 0130 00 now."), "personal-data", "1 IBAN"),
        (planted(7, "Call +49 30 901820 today."), "personal-data", "1 PHONE"),
        (planted(7, "Use ghp_abcdefghijklmnopqrstuvwxyz0123456789."), "secrets", "1 SECRET"),
        (planted(7, "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"),
         "secrets", "1 SECRET"),
        (planted(7, "Zero\u200bwidth."), "unusual-characters", "zero-width"),
        (planted(7, "A \x00 inside."), "unusual-characters", "NUL"),
        (planted(7, "CafÃ© crÃ¨me."), "mojibake", "Café"),
        (planted(7, "That is bullshit."), "offensive-words", "bullshit"),
        (planted(7, "x" * 30_000 + "."), "outlying-lengths", "30,0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_answer_is_found(
    tmp_path: Path, change: Change, name: str, said: str
) -> None:
    rows = chats(150)
    change(rows)
    result = checked(tmp_path, rows)
    assert found(result) == {name: [7]}
    (case,) = result.problems[0].cases
    assert case.place.endswith("train.jsonl:8")
    assert said in case.detail


def test_sentences_without_an_end_are_wrong_only_where_others_have_one(tmp_path: Path) -> None:
    rows = chats(60)
    rows[5] = answered(rows[5], rows[5]["messages"][1]["content"].removesuffix(" for."))
    assert found(checked(tmp_path, rows)) == {"cut-off-answers": [5]}
    without = [
        answered(row, row["messages"][1]["content"].removesuffix(" asks for.")) for row in rows
    ]
    assert "cut-off-answers" not in found(checked(tmp_path, without))


def test_json_is_broken_only_where_answers_are_json(tmp_path: Path) -> None:
    rows = [answered(row, json.dumps({"n": i})) for i, row in enumerate(chats(60))]
    assert found(checked(tmp_path, rows)) == {}
    rows[11] = answered(rows[11], '{"n": 11')
    rows[12] = answered(rows[12], "eleven")
    assert found(checked(tmp_path, rows)) == {"broken-json-answers": [11, 12]}
    assert "broken-json-answers" not in found(checked(tmp_path, chats(60)))


def test_rows_that_are_there_more_than_once(tmp_path: Path) -> None:
    rows = chats(100)
    rows[50] = rows[3]
    rows[60] = answered(rows[4], "Something else entirely, for a change.")
    near = rows[9]["messages"][0]["content"].replace("(9)", "(9), please")
    long_question = near + " and take all the time you need to find the words that fit it best"
    rows[9] = answered(rows[9], rows[9]["messages"][1]["content"], long_question)
    rows[70] = answered(rows[9], rows[9]["messages"][1]["content"], long_question + " here")
    result = found(checked(tmp_path, rows))
    assert result == {
        "exact-duplicates": [50], "conflicting-answers": [4, 60], "near-duplicates": [70],
    }  # fmt: skip


def test_rows_are_equal_to_the_letter(tmp_path: Path) -> None:
    asked = "Which command deletes the branch x, even if it is not merged into another one?"
    (row,) = chats(1)
    rows = [
        answered(row, "git branch -D x is the command for that.", asked),
        answered(row, "git branch -d x is the command for that.", asked),
        answered(row, "git branch -D x is the command for that.", asked.upper()),
        answered(row, "git branch -D x is the command for that.", asked),
    ]
    result = checked(tmp_path, [*chats(40), *rows])
    assert found(result)["exact-duplicates"] == [43]
    assert found(result)["conflicting-answers"] == [40, 41, 43]
    assert found(result)["near-duplicates"] == [42]


def test_tools_and_calls_are_part_of_what_is_asked(tmp_path: Path) -> None:
    def row(tool: str, call: str, answer: str) -> dict[str, Any]:
        tools = [{"type": "function", "function": {"name": name, "parameters": {}}}
                 for name in (tool, call) if name]  # fmt: skip
        made = {"id": "1", "type": "function", "function": {"name": call, "arguments": "{}"}}
        middle = (
            [
                {"role": "assistant", "content": "", "tool_calls": [made]},
                {"role": "tool", "tool_call_id": "1", "content": "done"},
            ]
            if call
            else []
        )
        asked = {"role": "user", "content": "What will the weather be like in Rome this week?"}
        answer_turn = {"role": "assistant", "content": answer}
        return {"messages": [asked, *middle, answer_turn], "tools": tools}

    rows = [row("weather", "", "Sunny."), row("", "", "I have no way to look that up."),
            row("", "tidy", "Done it."), row("", "wipe", "Done it.")]  # fmt: skip
    names = found(checked(tmp_path, [*chats(40), *rows]))
    assert not {"conflicting-answers", "exact-duplicates", "near-duplicates"} & names.keys()


def test_what_gives_held_out_rows_away(tmp_path: Path) -> None:
    rows, held = chats(100), chats(20, 1000)
    rows[10] = answered(rows[10], "Another answer to it, of course.",
                        held[3]["messages"][0]["content"].upper())  # fmt: skip
    passage = (
        "It had rained for nine days when the ferry left without its captain, and no one asked why."
    )
    held[5] = answered(held[5], "They were late.", f"What happened? {passage}")
    rows[20] = answered(
        rows[20], "A story.", f"Go on with this tale of ours, in your words. {passage}"
    )
    result = found(checked(tmp_path, rows, test=held))
    assert result == {
        "leaked-questions": [10], "near-leaks": [20], "conflicting-answers": [10, 103],
    }  # fmt: skip


def test_a_template_that_many_rows_share_is_no_leak(tmp_path: Path) -> None:
    template = (
        "Answer in one sentence, in the style of a harbour master who has seen it all before: "
    )
    rows, held = chats(100), chats(20, 1000)
    for some in (rows, held):
        for i, row in enumerate(some):
            some[i] = answered(row, row["messages"][1]["content"],
                               template + row["messages"][0]["content"] * 2)  # fmt: skip
    # Nearly equal they are; what is asked here is whether the common run alone makes a leak.
    result = found(checked(tmp_path, rows, Options(alike=0.99), test=held))
    assert not {"leaked-questions", "near-leaks"} & set(result)


def labelled(number: int) -> list[dict[str, Any]]:
    words = {"weather": "rain sun cloud storm", "music": "song band drum chord"}
    return [
        {"text": f"{said[i % 4]} {said[i // 4 % 4]} {ENDS[i % 7]} {i}",
         "label": name, "lang": "de" if i % 3 else "en"}
        for i in range(number) for name in words for said in [words[name].split()]
    ]  # fmt: skip


def test_labels_that_are_spelled_otherwise_rare_or_doubtful(tmp_path: Path) -> None:
    rows = labelled(150)
    assert found(checked(tmp_path, rows)) == {}
    rows[10] = {**rows[10], "label": "Weather "}
    wrong = [31, 61, 91, 121, 151]
    for i in wrong:
        rows[i] = {**rows[i], "label": "weather"}
    result = checked(tmp_path, rows, Options(skip=["overlap"]))
    names = found(result)
    doubted = names.pop("doubtful-labels")
    assert names == {"label-spellings": [10], "rare-labels": [10], "uneven-labels": []}
    assert set(doubted) <= set(wrong)
    assert len(doubted) >= 4
    assert result.usual == {"Weather ": "weather"}
    assert result.suggested == dict.fromkeys(doubted, "music")


def test_groups_that_get_other_labels_are_told(tmp_path: Path) -> None:
    rows = labelled(100)
    for row in rows:
        row["region"] = "north" if row["label"] == "music" else "south"
    result = checked(tmp_path, rows, Options(only=["slices"]))
    assert result.slices["region"] == {"north": 100, "south": 100}
    rates = {(r.group, r.label): (r.rate, r.low, r.high) for r in result.rates}
    # Wilson (1927): 100 of 100 at 95 %.
    assert rates["north", "music"] == pytest.approx((1.0, 0.9630, 1.0), abs=1e-4)
    assert not any(rate.column == "lang" for rate in result.rates)


TOOL = {
    "type": "function",
    "function": {
        "name": "light",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "level": {"type": "integer"}},
            "required": ["room"],
        },
    },
}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("light", {"room": "hall", "level": 3}, ""),
        ("light", {"level": 3}, "'room' is a required property"),
        ("light", {"room": "hall", "level": "high"}, "at level"),
        ("lamp", {"room": "hall"}, "not among its tools"),
    ],
)
def test_calls_are_held_against_their_schemas(
    tmp_path: Path, name: str, arguments: dict[str, Any], said: str
) -> None:
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": "c1", "type": "function", "function": function}
    row = {
        "messages": [
            {"role": "user", "content": "Light in the hall."},
            {"role": "assistant", "tool_calls": [call]},
        ],
        "tools": [TOOL],
    }
    problems = checked(tmp_path, [row]).problems
    assert [p.name for p in problems] == (["broken-tool-calls"] if said else [])
    assert not said or said in problems[0].cases[0].detail


def test_lines_that_are_no_rows_are_told_with_the_others(tmp_path: Path) -> None:
    rows: list[Any] = chats(20)
    rows[4] = '{"messages": ['
    rows[6] = json.dumps({"messages": [{"role": "boss", "content": "x"}]})
    result = checked(tmp_path, rows)
    named = {p.name: [case.place.rsplit(":", 1)[1] for case in p.cases] for p in result.problems}
    assert named["broken-json"] == ["5"]
    assert named["unknown-role"] == ["7"]
    assert result.has_errors


def test_nothing_private_is_in_the_report(tmp_path: Path) -> None:
    rows = chats(50)
    secret, mail = "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "anna.berg@firma.de"
    for start in range(0, 260, 13):
        filler = ("word " * 60)[:start]
        rows[start // 13] = answered(
            rows[start // 13], f"I'm sorry, I can't. {filler} {mail} {secret}"
        )
    result = checked(tmp_path, rows)
    assert {"secrets", "personal-data", "refusals"} <= set(found(result))
    report = data_report(result, "rows", datetime(2026, 11, 22, tzinfo=UTC), lambda p: "fix")
    for text in (render_data_page(report), as_json(report)):
        assert "anna.b" not in text
        assert "ghp_" not in text
        assert "[SECRET]" in text


def test_texts_cannot_leave_the_page(tmp_path: Path) -> None:
    rows = [answered(row, "I'm sorry, I can't. <script>alert(1)</script>") for row in chats(30)]
    report = data_report(
        checked(tmp_path, rows), "<b>", datetime(2026, 11, 22, tzinfo=UTC), lambda p: "<i>"
    )
    page = render_data_page(report)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<i>" not in page


def test_checks_are_chosen_by_name(tmp_path: Path) -> None:
    rows = [answered(row, "I'm sorry, I can't help.") for row in chats(30)]
    assert set(checked(tmp_path, rows, Options(only=["refusals"])).seconds) == {
        "reading",
        "refusals",
    }
    without = checked(tmp_path, rows, Options(skip=["refusals"]))
    assert set(without.seconds) == {"reading", *CHECKS} - {"refusals", "unwanted-content"}
    with pytest.raises(ConfigError, match="expected format, overlap"):
        Options(only=["refusal"])
    with pytest.raises(ConfigError, match="alike"):
        Options(alike=1.2)


def test_regions_that_are_none_are_refused() -> None:
    assert Options(region="GB").region == "GB"
    with pytest.raises(ConfigError, match="'UK'; expected a country's two letters"):
        Options(region="UK")


def test_files_without_a_row_are_no_success(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\n")
    with pytest.raises(DataError, match=r"rows.csv: holds no row"):
        check_rows(FileSource({None: [tmp_path / "rows.csv"]}))
