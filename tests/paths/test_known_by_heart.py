"""A tiny model that learns few rows for long knows them by heart, and new ones not."""

import json
import random
from pathlib import Path

from journey import luthier, write_rows, write_task

WORDS = [
    "red",
    "green",
    "one",
    "two",
    "what",
    "number",
    "lamp",
    "song",
    "kitchen",
    "hall",
    "music",
    "light",
    "on",
    "off",
    "the",
    "a",
]


def row(i: int) -> dict[str, object]:
    chosen = random.Random(i)
    said = {"role": "assistant", "content": " ".join(chosen.choices(WORDS, k=14))}
    return {"messages": [{"role": "user", "content": f"number {i}"}, said]}


def test_what_is_learnt_by_heart_is_found(tmp_path: Path) -> None:
    write_task(
        tmp_path, name="heart", data={"train": "rows.jsonl", "test": "held.jsonl",
                                      "validation_share": 0},
        training={"epochs": 150, "batch_size": 6, "learning_rate": 0.01, "checkpoint_every": 1000},
        tuning="full", evaluation={"shots": [], "nearest": 0, "max_new_tokens": 8},
    )  # fmt: skip
    write_rows(tmp_path / "rows.jsonl", [row(i) for i in range(12)])
    write_rows(tmp_path / "held.jsonl", [row(i) for i in range(500, 520)])
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    found = luthier(tmp_path, "memory", "heart", "--output", "known.jsonl")
    assert found.code == 0, found.error
    said = " ".join(found.out.split())
    assert "of 12 learnt rows" in said
    assert "of 20 new ones" in said
    assert "is known by heart" in said, said
    known = [json.loads(line) for line in (tmp_path / "known.jsonl").read_text().splitlines()]
    assert known
    for line in known:
        place, _, number = line["place"].rpartition(":")
        learnt = row(int(number) - 1)["messages"][1]["content"]  # type: ignore[index]
        assert place.endswith("rows.jsonl")
        assert learnt.endswith(line["text"].strip())


def test_answers_too_short_to_be_halved_are_refused(tmp_path: Path) -> None:
    write_task(tmp_path, name="short")
    short = [{"prompt": f"number {i}", "completion": "one"} for i in range(30)]
    write_rows(tmp_path / "rows.jsonl", short)
    assert luthier(tmp_path, "train", "recipe.yaml").code == 0
    refused = luthier(tmp_path, "memory", "short")
    assert refused.code == 2
    assert "has 0 learnt rows whose answers have 8 tokens or more" in refused.error
