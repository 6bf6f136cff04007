"""Answers that are programs, judged by running tests, each in a sandbox.

A row names its tests in the column `test` (Python that raises when something is wrong) and, as
HumanEval has it (Chen et al. 2021, arXiv 2107.03374), may name a function in `entry_point`, which
the tests' `check` is then called with. An answer is a whole program, or goes on where the code in
the question ends; of a text with fenced code the first block is the program.
"""

import re

from luthier.data import Chat, Example, Preference, Rated, as_chat
from luthier.evaluation.prompting import question
from luthier.evaluation.sandbox import Limits, run_program
from luthier.evaluation.values import Prediction

TESTS, ENTRY = "test", "entry_point"
FENCED = re.compile(r"```[a-zA-Z]*\n(.*?)(?:```|\Z)", re.DOTALL)
BEGINS = re.compile(r"^(?:from |import |def |class |async |@)", re.MULTILINE)
LIMITS = Limits(seconds=10)


def judge_code(prediction: Prediction, example: Example) -> float | None:
    """1 when the tests of the row pass; None where it has none."""
    tests = example.slices.get(TESTS, "")
    if not tests or not isinstance(example, Chat | Preference | Rated):
        return None
    entry = example.slices.get(ENTRY, "")
    called = f"\n\ncheck({entry})" if entry.isidentifier() else ""
    program = program_of(prediction.text, question(as_chat(example)), entry)
    return float(run_program(f"{program}\n\n{tests}{called}\n", limits=LIMITS).ending == "finished")


def program_of(answer: str, asked: str, entry: str) -> str:
    """The program that an answer is."""
    block = FENCED.search(answer)
    written = block.group(1) if block else answer
    begun = BEGINS.search(asked)
    code = asked[begun.start() :] if begun else ""
    defines = entry and re.search(rf"^(?:async )?def {re.escape(entry)}\b", written, re.MULTILINE)
    if defines or not code:
        # What the question imports and defines is there for the whole program, too.
        return f"{code}\n    pass\n\n{written}" if defines and _compiles(code) else written
    return f"{code.rstrip()}\n{written}"


def _compiles(code: str) -> bool:
    """Whether the question's code, with an empty last function, is a program."""
    try:
        compile(f"{code}\n    pass\n", "question", "exec")
    except (SyntaxError, ValueError):
        return False
    return True
