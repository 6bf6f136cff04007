"""What is trained on, as ids and labels, tokenised once for every contender.

(a) does not flatter us: short rows of like length, everything learnt. (d) is what packing makes:
blocks without padding, everything learnt. All but (a) need rows that are not part of this project;
examples/synopsis/README.md says how they are laid out.
"""

import json
import os
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LUTHIER_BENCHMARK_DATA", ROOT / "examples" / "synopsis" / "rows"))
WORKLOADS = {
    "a": "short rows, everything learnt",
    "b": "long prompt, short answer",
    "c": "mixed lengths, long answers",
    "d": "packed blocks of 2048 tokens, everything learnt",
    "p": "pairs: long prompt, two short answers",
    "i": "short sentences, 42 classes",
    "m": "mails of up to 256 tokens, two classes",
    "s": "pairs of a line and a paragraph",
}
BATCH_SIZE = {"a": 8, "b": 8, "c": 8, "d": 1, "p": 8, "i": 32, "m": 32, "s": 32}
TEXTS = "ims"
"""Workloads for models that read whole texts."""
HELD_OUT = 24
BLOCK = 2048


def model_folder(task: str) -> Path:
    """SmolLM2-135M-Instruct as a folder, or all-MiniLM-L6-v2 for texts."""
    from luthier.models import default_cache, resolve_source
    from luthier.recipe import read_recipe

    example = "intents" if task in ("classify", "embed") else "smart-home"
    model = read_recipe(ROOT / "examples" / example / "recipe.yaml").recipe.model
    cache = Path(os.environ.get("LUTHIER_BENCHMARK_CACHE", default_cache()))
    return resolve_source(model, cache).path


def rows_of(workload: str, model: Path, steps: int) -> dict[str, Any] | None:
    """Rows in the order of visiting, held-out rows, and places; None when the data is not there."""
    if workload in TEXTS:
        from benchmarks.text_rows import text_rows

        count = steps * BATCH_SIZE[workload]
        texts = text_rows(workload, model, count + HELD_OUT)
        return None if texts is None else _ordered(texts[:count], texts[count:], workload)
    file = {"a": ROOT / "examples" / "smart-home" / "train.jsonl",
            "p": DATA / "pairs.jsonl",
            }.get(workload, DATA / "train.jsonl")  # fmt: skip
    if not file.is_file():
        return None
    found = [json.loads(line) for line in file.open(encoding="utf-8")]
    count = steps * BATCH_SIZE[workload]
    if workload == "d":
        tokenised = _blocks(found, model, count + 2)
        rows, held_out = tokenised[:count], tokenised[count:]
    else:
        tokenised = [_tokenised(row, workload, model) for row in found[: count + HELD_OUT]]
        rows, held_out = tokenised[:count], tokenised[count:]
    return _ordered(rows, held_out, workload)


def _ordered(
    rows: list[dict[str, Any]], held_out: list[dict[str, Any]], workload: str
) -> dict[str, Any]:
    """Rows in the order in which Luthier's loop visits them; all contenders do."""
    from benchmarks.peers import luthier, luthier_texts
    from luthier.training.batches import StepPlan

    ours: Any = luthier_texts if workload in TEXTS else luthier
    lengths = tuple(ours.encoded("", row).num_tokens for row in rows)
    plan = StepPlan(lengths, BATCH_SIZE[workload], 1, 0, ours.MICRO_BATCH_TOKENS)
    places = [i for step in range(plan.num_steps) for i in plan.examples_of(step)]
    return {"rows": [rows[i] for i in places], "held_out": held_out, "places": places}


def _tokenised(row: dict[str, Any], workload: str, model: Path) -> dict[str, Any]:
    from luthier.data import Chat, Message, Place
    from luthier.tokens import encode_chat

    def ids(*turns: dict[str, str]) -> Any:
        messages = tuple(Message(m["role"], m["content"]) for m in turns)  # type: ignore[arg-type]
        return encode_chat(_tokenizer(model), Chat("", Place("rows", 1), messages))

    if workload == "p":
        prompt = {"role": "user", "content": row["prompt"]}
        pair = [
            ids(prompt, {"role": "assistant", "content": row[k]}) for k in ("chosen", "rejected")
        ]
        start = pair[0].spans[0][0]
        assert pair[1].spans[0][0] == start, "the prompt is the same"
        return {
            "prompt_ids": pair[0].input_ids[:start],
            "chosen_ids": pair[0].input_ids[start : pair[0].spans[0][1]],
            "rejected_ids": pair[1].input_ids[start : pair[1].spans[0][1]],
        }
    turns = _turned_round(row) if workload in "cd" else row["messages"]
    chat = ids(*turns)
    labels = list(chat.input_ids) if workload in "ad" else chat.labels
    return {"input_ids": chat.input_ids, "labels": labels}


_TOKENIZERS: dict[Path, Any] = {}


def _tokenizer(model: Path) -> Any:
    from luthier.tokens import Tokenizer

    if model not in _TOKENIZERS:
        _TOKENIZERS[model] = Tokenizer.load(model)
    return _TOKENIZERS[model]


def _turned_round(row: dict[str, Any]) -> list[dict[str, str]]:
    """From "write the synopsis of this description" to "write the description"."""
    asked, answered = (message["content"] for message in row["messages"][-2:])
    description = asked.split("\n\n", 1)[1]
    question = f"Write the description of this software package.\n\n{answered}"
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": description},
    ]


def _blocks(rows: list[dict[str, Any]], model: Path, count: int) -> list[dict[str, Any]]:
    """Rows joined and cut into blocks."""
    ids: list[int] = []
    for row in rows:
        if len(ids) >= count * BLOCK:
            break
        ids += _tokenised(row, "d", model)["input_ids"]
    blocks = [ids[i * BLOCK : (i + 1) * BLOCK] for i in range(count)]
    return [{"input_ids": block, "labels": list(block)} for block in blocks]
