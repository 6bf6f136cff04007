"""Answers that are programs, run against the tests of their row."""

from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_fakes import make_chat

from luthier.data import Chat, Message, RowReader, read_rows
from luthier.evaluation import Prediction
from luthier.evaluation.code_answers import judge_code, program_of
from luthier.evaluation.sandbox import Limits, cannot_shut_in

pytestmark = pytest.mark.skipif(bool(cannot_shut_in()), reason=f"no sandbox: {cannot_shut_in()}")
ASKED = 'Complete it.\n\nimport math\n\ndef area(r):\n    """Of a circle."""\n'
TESTS = "def check(candidate):\n    assert abs(candidate(1) - 3.14159) < 1e-4\n"
ROW = replace(
    make_chat("a", ""),
    messages=(Message("user", ASKED), Message("assistant", "    return math.pi * r * r\n")),
    slices={"test": TESTS, "entry_point": "area"},
)
HUMANEVAL = Path(__file__).parents[3] / "shared" / "data" / "humaneval" / "test.jsonl"


def judged(answer: str, row: Chat = ROW) -> float | None:
    return judge_code(Prediction("a", answer, True, 1), row)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("    return math.pi * r * r\n", 1),
        ("def area(r):\n    return 3.14159265 * r ** 2", 1),
        ("def area(r):\n    return math.pi * r ** 2", 1),  # the question imports math
        ("Sure!\n```python\nimport math\ndef area(r):\n    return math.pi * r**2\n```\nDone.", 1),
        ("```\n    return math.pi * r * r\n", 1),
        ("    return r * r\n", 0),
        ("    return (\n", 0),
        ("", 0),
        ("I cannot do that.", 0),
        ("    while True: pass\n", 0),
        ("    return math.pi * r * r\nimport os\nos._exit(0)\n", 0),
    ],
)
def test_an_answer_passes_or_fails_its_tests(
    answer: str, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luthier.evaluation.code_answers.LIMITS", Limits(seconds=1))
    assert judged(answer) == score


def test_rows_without_tests_are_not_judged() -> None:
    assert judged("x", replace(ROW, slices={})) is None


def test_tests_need_no_function_to_be_named() -> None:
    row = replace(ROW, slices={"test": "assert area(0) == 0"})
    assert judged("    return math.pi * r * r\n", row) == 1
    assert judged("    return 1\n", row) == 0


def test_names_of_functions_are_no_code() -> None:
    row = replace(ROW, slices={"test": "pass", "entry_point": "area) or print(1"})
    assert judged("    return 1", row) == 1


def test_what_the_question_defines_is_there_for_a_whole_answer() -> None:
    asked = "def half(x):\n    return x / 2\n\ndef quarter(x):\n"
    program = program_of("def quarter(x):\n    return half(half(x))", asked, "quarter")
    names: dict[str, object] = {}
    exec(program, names)
    assert names["quarter"](8) == 2  # type: ignore[operator]


def test_reference_answers_of_humaneval_pass_and_others_fail() -> None:
    if not HUMANEVAL.is_file():
        pytest.skip("the dataset is not beside the project")
    reader = RowReader(print)
    rows = [reader.example(row) for row in read_rows(HUMANEVAL, print)][:12]
    for row in rows:
        assert isinstance(row, Chat)
        assert judged(row.target.content, row) == 1
        assert judged("    return None\n", row) == 0
