"""Rows as ids by datasets' map: the conversation, and its prompt, as trainers of answers do it."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import peak_bytes


def main() -> None:
    """Tokenise, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    os.environ["HF_DATASETS_CACHE"] = f"{job['cache']}/datasets-{job['name']}"
    from datasets import load_dataset
    from transformers import AutoTokenizer

    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    rows = load_dataset("json", data_files=job["file"], split="train")

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        tools = [tool for tool in row.get("tools") or [] if tool] or None
        messages = [{k: v for k, v in m.items() if v is not None} for m in row["messages"]]
        prompt = tokenizer.apply_chat_template(
            messages[:-1], tools=tools, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        whole = tokenizer.apply_chat_template(messages, tools=tools, return_dict=True)["input_ids"]
        assert whole[: len(prompt)] == prompt
        return {"input_ids": whole, "start": len(prompt)}

    encoded = rows.map(encode, remove_columns=rows.column_names, **job["variant"])
    seconds = time.perf_counter() - started
    digest = hashlib.sha256()
    for row in encoded:
        digest.update(json.dumps([row["input_ids"], row["start"]]).encode())
    found = {"seconds": seconds, "rows": len(encoded), "ids": digest.hexdigest()}
    print("\n" + json.dumps({**found, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
