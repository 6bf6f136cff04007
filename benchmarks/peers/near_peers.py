"""Near duplicates by text-dedup's MinHash, and by datasketch's."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import peak_bytes

PIECE = 5
"""Characters of a piece, where the peer leaves it to its user."""


def main() -> None:
    """Group the texts, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    seconds, groups = {"text-dedup": text_dedup, "datasketch": datasketch}[job["peer"]](job)
    print("\n" + json.dumps({"seconds": seconds, "groups": groups, "peak_bytes": peak_bytes()}))


def text_dedup(job: dict[str, Any]) -> tuple[float, list[int]]:
    """Its command, as its documentation has it; it notes clusters itself."""
    output = Path(job["cache"]) / "text-dedup"
    sys.argv = [
        "minhash", "--path", "json", "--data_files", job["file"], "--split", "train",
        "--cache_dir", f"{job['cache']}/datasets", "--output", str(output), "--column", "text",
        "--threshold", str(job["threshold"]), "--min_length", "1", "--use_auth_token", "false",
        *job["variant"],
    ]  # fmt: skip
    from text_dedup import minhash

    started = time.perf_counter()
    minhash.main(standalone_mode=False)
    seconds = time.perf_counter() - started
    return seconds, [int(minhash.uf.find(i)) for i in range(job["rows"])]


def datasketch(job: dict[str, Any]) -> tuple[float, list[int]]:
    """MinHashLSH over pieces of characters; what shares a bucket is a group."""
    from datasketch import MinHash, MinHashLSH

    with Path(job["file"]).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    started = time.perf_counter()
    index = MinHashLSH(threshold=job["threshold"], num_perm=128)
    groups: list[int] = []
    for number, text in enumerate(texts):
        pieces = {text[i : i + PIECE].encode() for i in range(max(1, len(text) - PIECE + 1))}
        sketch = MinHash(num_perm=128)
        sketch.update_batch(pieces)
        near = [int(found) for found in index.query(sketch)]
        groups.append(groups[min(near)] if near else number)
        index.insert(str(number), sketch)
    return time.perf_counter() - started, groups


if __name__ == "__main__":
    main()
