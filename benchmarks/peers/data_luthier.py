"""Luthier's part of the comparisons of `benchmarks.data`: ids of rows, near duplicates, formats."""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import peak_bytes


def main() -> None:
    """Do the task of the job, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    tasks = {"tokenise": tokenise, "near": near, "format": formats}
    found = tasks[job["task"]](job)
    print("\n" + json.dumps({**found, "peak_bytes": peak_bytes()}))


def tokenise(job: dict[str, Any]) -> dict[str, Any]:
    """Rows of a file as ids, and where each answer begins."""
    from luthier.data import RowReader, read_rows
    from luthier.tokens import KeptIds, Tokenizer, encode_split

    started = time.perf_counter()
    tokenizer = Tokenizer.load(Path(job["model"]))
    reader = RowReader(print)
    rows = (reader.example(row) for row in read_rows(Path(job["file"]), print))
    examples = [example for example in rows if example is not None]
    split = encode_split(
        tokenizer, "train", examples, train_on="last", max_length=10**9,
        kept_ids=KeptIds(Path(job["cache"]) / "luthier"),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    digest = hashlib.sha256()
    for encoded in split.encoded:
        (sequence,) = encoded.sequences
        # A template may end in white space after the last turn's end, which nobody learns here.
        digest.update(json.dumps([sequence.input_ids, sequence.spans[-1][0]]).encode())
    return {"seconds": seconds, "rows": len(split.encoded), "ids": digest.hexdigest()}


def near(job: dict[str, Any]) -> dict[str, Any]:
    """Groups of texts that are nearly the same."""
    from luthier.curation.looking import Spool
    from luthier.curation.near import find_alike

    with Path(job["file"]).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    started = time.perf_counter()
    with Spool() as spool:
        spool.add(texts)
        groups = find_alike(spool, job["threshold"])
    return {"seconds": time.perf_counter() - started, "groups": groups.tolist()}


def formats(job: dict[str, Any]) -> dict[str, Any]:
    """Lines of a file that are no rows."""
    from luthier.curation.formats import check_format

    wrong: set[int] = set()
    started = time.perf_counter()
    number = check_format(Path(job["file"]), lambda finding: wrong.add(finding.place.line))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": number, "wrong": sorted(wrong)}


if __name__ == "__main__":
    main()
