"""What models of texts are trained on and asked, tokenised once for every contender."""

import json
from pathlib import Path
from typing import Any

from benchmarks.workloads import ROOT

EXAMPLES = ROOT / "examples"
FILES = {
    "i": EXAMPLES / "intents" / "train.jsonl",
    "m": EXAMPLES / "moderation" / "mail" / "train.jsonl",
    "s": EXAMPLES / "search" / "rows" / "train.jsonl",
}
COLUMNS = {"i": ("text",), "m": ("text",), "s": ("anchor", "positive")}
MAX_LENGTH = 256


def text_rows(workload: str, model: Path, count: int) -> list[dict[str, Any]] | None:
    """Rows: texts, their ids, and a class; None when the data is not there."""
    from luthier.tokens import Tokenizer, read_texts

    if not FILES[workload].is_file():
        return None
    lines = list(FILES[workload].open(encoding="utf-8"))
    labels = sorted({json.loads(line).get("label", "") for line in lines})
    tokenizer = Tokenizer.load(model, writes=False)
    rows = []
    for line in lines[:count]:
        row = json.loads(line)
        texts = [row[column] for column in COLUMNS[workload]]
        read = read_texts(tokenizer, [(text, None) for text in texts], MAX_LENGTH)
        rows.append(
            {
                "texts": texts,
                "ids": [text.input_ids for text, _ in read],
                "class": labels.index(row.get("label", "")),
                "num_classes": len(labels),
            }
        )
    return rows
