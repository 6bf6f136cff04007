"""What is trained on: three workloads as ids and labels, tokenised once for every contender."""

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SYNOPSIS = ROOT.parent / "shared" / "data" / "deb-synopsis"
WORKLOADS = {
    "a": "short rows, everything supervised",
    "b": "long prompt, short answer",
    "c": "mixed lengths, long answers",
}
BATCH_SIZE, HELD_OUT = 8, 24


def model_folder() -> Path:
    """SmolLM2-135M-Instruct as a folder."""
    from luthier.models import default_cache, resolve_source
    from luthier.recipe import read_recipe

    model = read_recipe(ROOT / "examples" / "smart-home" / "recipe.yaml").recipe.model
    cache = Path(os.environ.get("LUTHIER_BENCHMARK_CACHE", default_cache()))
    return resolve_source(model, cache).path


def rows_of(workload: str) -> list[dict[str, Any]] | None:
    """Chats of a workload, or None when its data is not there."""
    if workload == "a":
        return _read(ROOT / "examples" / "smart-home" / "train.jsonl")
    if not SYNOPSIS.is_dir():
        return None
    rows = _read(SYNOPSIS / "train.jsonl")
    return rows if workload == "b" else [_turned_round(row) for row in rows]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _turned_round(row: dict[str, Any]) -> dict[str, Any]:
    """From "write the synopsis of this description" to "write the description"."""
    asked, answered = (message["content"] for message in row["messages"][-2:])
    description = asked.split("\n\n", 1)[1]
    question = f"Write the description of this software package.\n\n{answered}"
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": description},
        ]
    }


def write_rows(
    folder: Path, model: Path, rows: list[dict[str, Any]], workload: str, steps: int
) -> None:
    """Tokenise the rows that `steps` steps need, and the held-out ones after them."""
    from luthier.data import Chat, Message, Place
    from luthier.tokens import Tokenizer, encode_chat

    tokenizer = Tokenizer.load(model)
    encoded = []
    for number, row in enumerate(rows[: steps * BATCH_SIZE + HELD_OUT], 1):
        messages = tuple(Message(m["role"], m["content"]) for m in row["messages"])
        chat = encode_chat(tokenizer, Chat(str(number), Place("rows", number), messages))
        labels = list(chat.input_ids) if workload == "a" else chat.labels
        encoded.append({"input_ids": chat.input_ids, "labels": labels})
    (folder / "rows.json").write_text(json.dumps(encoded))
