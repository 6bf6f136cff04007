"""What the checks of datasets find of faults that were put there, and what else they then find.

    python -m benchmarks.faults FOLDER ... [--seed 7]

Each folder holds train.jsonl and test.jsonl. Rows are checked as they are, then with faults of
every kind planted into them. Recall is the share of planted rows that the check named; precision,
of the rows that it names now and did not before, the share that anything was planted in: an answer
cut short is no JSON either, and a copy of a row with an address holds one. What a check names in
the rows as they are is counted, and judged by nobody here. Results: benchmarks/results/faults.json.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from luthier.curation import FileSource, check_rows

RESULTS = Path(__file__).parent / "results" / "faults.json"
Rows = list[dict[str, Any]]
REFUSALS = (
    "I'm sorry, but I can't help with that.", "As an AI language model, I do not have opinions.",
    "I cannot provide this information.", "I apologize, but I am not able to do that.",
)  # fmt: skip
PRIVATE = (
    "write to {name}.{name}@{name}-post.de", "call +49 30 90{number}", "pay to {iban}",
    "card {card}", "from the address 93.184.{a}.{b}",
)  # fmt: skip
SECRETS = ("the key is ghp_{token}", "AKIA{upper}", "https://{name}:{token}@host.net/x")
NAMED = {"duplicates-in-capitals": "near-duplicates"}
"""Faults that the check of another name is to find."""
NAMES = ("anna", "jonas", "mirela", "okoye", "svensson", "takeda", "ximena", "youssef")


def main() -> None:
    """Plant, check and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    results = {folder.name: measured(folder, arguments.seed) for folder in arguments.folders}
    RESULTS.write_text(json.dumps({"seed": arguments.seed, "sets": results}, indent=1) + "\n")
    print("| set | fault | planted | found | recall | precision | found before |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for name, faults in results.items():
        for fault, found in faults.items():
            precision = found["precision"]
            shown = "" if precision is None else f"{100 * precision:.0f} %"
            print(
                f"| {name} | {fault} | {found['planted']} | {found['found']} "
                f"| {100 * found['recall']:.0f} % | {shown} | {found['before']} |"
            )


def measured(folder: Path, seed: int) -> dict[str, dict[str, Any]]:
    """Fault -> what was planted and found."""
    train, test = (read(folder / f"{split}.jsonl") for split in ("train", "test"))
    before = named(train, test)
    planted = Planter(train, test, random.Random(seed))
    planted.all()
    after = named(planted.rows, test)
    touched = set().union(*planted.places.values())
    results = {}
    for fault, places in planted.places.items():
        if not places:
            continue
        problem = NAMED.get(fault, fault)
        known, found = before.get(problem, set()), after.get(problem, set())
        new = found - known
        hits = len(places & found)
        results[fault] = {
            "planted": len(places), "found": hits, "recall": hits / len(places),
            "precision": len(touched & new) / len(new) if new else None, "before": len(known),
        }  # fmt: skip
    return results


def read(place: Path) -> Rows:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in place.read_bytes().split(b"\n") if line]


def named(train: Rows, test: Rows) -> dict[str, set[int]]:
    """Problem -> training rows that it is about."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"train": Path(folder) / "train.jsonl", "test": Path(folder) / "test.jsonl"}
        for (_, place), rows in zip(files.items(), (train, test), strict=True):
            place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        checked = check_rows(FileSource({"train": [files["train"]], "test": [files["test"]]}))
    return {
        problem.name: {position for position in problem.positions.tolist() if position < len(train)}
        for problem in checked.problems
    }


class Planter:
    """Puts faults into rows, and remembers where. No row gets two."""

    def __init__(self, train: Rows, test: Rows, random_: random.Random) -> None:
        self.rows = [json.loads(json.dumps(row)) for row in train]
        self.places: dict[str, set[int]] = {}
        self._test, self._random = test, random_
        self._free = list(range(len(train)))
        self._random.shuffle(self._free)
        self.is_labelled = "label" in train[0]
        first = [answer(row) for row in train[:50]]
        self.is_json = all(text.startswith("{") for text in first)
        ends = sum(text.endswith((".", "!", "?")) and len(text) > 60 for text in first)
        self.is_prose = not self.is_labelled and not self.is_json and ends > 20

    def all(self) -> None:
        """Every kind that the rows can have."""
        count = max(15, len(self.rows) // 100)
        self._change("personal-data", count, lambda row: with_words(row, self._filled(PRIVATE)))
        self._change("secrets", count, lambda row: with_words(row, self._filled(SECRETS)))
        self._change("unusual-characters", count, lambda row: with_words(row, "x\u200by"))
        self._change("mojibake", count, lambda row: with_words(row, "au cafÃ© prÃ¨s"))
        if self.is_labelled:
            self._change("doubtful-labels", 3 * count, self._mislabelled)
        else:
            said = self._random.choice
            self._change("refusals", count, lambda row: with_answer(row, said(REFUSALS)))
            self._change("copied-answers", count, lambda row: with_answer(row, question(row)))
        if self.is_json:
            self._change(
                "broken-json-answers", count, lambda row: with_answer(row, answer(row)[:-2])
            )
        if self.is_prose:
            self._change("cut-off-answers", count, self._cut)
        self._add("exact-duplicates", count, self.rows, lambda row: row)
        self._add("duplicates-in-capitals", count, self.rows, lambda row: with_question(
            row, question(row).upper()))  # fmt: skip
        self._add("near-duplicates", count, self._long(self.rows), self._nearly)
        self._add("leaked-questions", count, self._test, lambda row: with_question(
            row, question(row) + " "))  # fmt: skip
        self._add("near-leaks", count, self._long(self._test), self._nearly)

    def _change(
        self, fault: str, count: int, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None:
        chosen = [self._free.pop() for _ in range(min(count, len(self._free) // 4))]
        for place in chosen:
            self.rows[place] = change(self.rows[place])
        self.places[fault] = set(chosen)

    def _add(
        self, fault: str, count: int, source: Sequence[dict[str, Any]],
        change: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:  # fmt: skip
        start = len(self.rows)
        chosen = self._random.sample(source, min(count, len(source)))
        self.rows += [change({k: v for k, v in row.items() if k != "id"}) for row in chosen]
        self.places[fault] = set(range(start, len(self.rows)))

    def _long(self, rows: Rows) -> Rows:
        """Rows that are long enough for one changed word to leave them nearly the same."""
        return [row for row in rows[: len(self._free)] if len(question(row)) > 150] or [
            row for row in rows if len(question(row)) > 40
        ]

    def _nearly(self, row: dict[str, Any]) -> dict[str, Any]:
        """One word less, or one more, in fifteen."""
        words = question(row).split(" ")
        for _ in range(max(1, len(words) // 15)):
            place = self._random.randrange(len(words))
            if self._random.random() < 0.5 and len(words) > 3:
                del words[place]
            else:
                words.insert(place, self._random.choice(("also", "please", "now", "really")))
        return with_question(row, " ".join(words))

    def _mislabelled(self, row: dict[str, Any]) -> dict[str, Any]:
        others = sorted({other["label"] for other in self.rows} - {row["label"]})
        return {**row, "label": self._random.choice(others)}

    def _cut(self, row: dict[str, Any]) -> dict[str, Any]:
        words = answer(row).split(" ")
        last = self._random.randrange(len(words) // 2, max(len(words) - 1, len(words) // 2 + 1))
        return with_answer(row, " ".join(words[:last]).rstrip(".,;:!?"))

    def _filled(self, phrases: Sequence[str]) -> str:
        draw = self._random
        token = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=36))
        return draw.choice(phrases).format(
            name=draw.choice(NAMES), number=draw.randrange(1000, 9999), iban=iban(draw),
            card=card(draw), a=draw.randrange(1, 250), b=draw.randrange(1, 250), token=token,
            upper=token.upper()[:16],
        )  # fmt: skip


def card(draw: random.Random) -> str:
    """A number with the check digit of cards (Luhn)."""
    digits = [4, *(draw.randrange(10) for _ in range(14))]
    total = sum(sum(divmod(2 * d, 10)) if i % 2 == 0 else d for i, d in enumerate(digits))
    number = "".join(map(str, [*digits, -total % 10]))
    return " ".join(number[i : i + 4] for i in range(0, 16, 4))


def iban(draw: random.Random) -> str:
    """A German account number with its check digits (ISO 13616)."""
    account = "".join(str(draw.randrange(10)) for _ in range(18))
    check = 98 - int(f"{account}131400") % 97
    return f"DE{check:02}{account}"


def question(row: dict[str, Any]) -> str:
    """What a row asks last."""
    if "messages" in row:
        return next(str(m["content"]) for m in reversed(row["messages"]) if m["role"] == "user")
    return str(row.get("text", row.get("prompt")))


def answer(row: dict[str, Any]) -> str:
    """What a row answers."""
    if "messages" in row:
        return str(row["messages"][-1]["content"])
    return str(row.get("label", row.get("completion")))


def with_question(row: dict[str, Any], text: str) -> dict[str, Any]:
    """The row asking something else last."""
    if "messages" not in row:
        return {**row, "text" if "text" in row else "prompt": text}
    messages = list(row["messages"])
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    messages[last] = {**messages[last], "content": text}
    return {**row, "messages": messages}


def with_answer(row: dict[str, Any], text: str) -> dict[str, Any]:
    """The row with another answer."""
    if "messages" not in row:
        return {**row, "completion": text}
    return {**row, "messages": [*row["messages"][:-1], {"role": "assistant", "content": text}]}


def with_words(row: dict[str, Any], words: str) -> dict[str, Any]:
    """The row asking with some more words in the middle."""
    said = question(row).split(" ")
    said.insert(len(said) // 2, words)
    return with_question(row, " ".join(said))


if __name__ == "__main__":
    main()
