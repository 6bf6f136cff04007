"""Luthier's vectors of texts of mixed length, as `luthier predict` computes them."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from luthier.models import choose_device, load_encoder, precision, probe_devices
from luthier.pipeline.asking import Reader
from luthier.tokens import Tokenizer

BUDGET = 8192


def main() -> None:
    """Encode, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(job["model"])
    model = load_encoder(
        folder,
        dtype=precision("bfloat16" if probe_devices().has_fast_bfloat16 else "float32"),
        device=choose_device("cpu", 2),
    )
    limit = model.pooling.max_length or 512
    reader = Reader(model, Tokenizer.load(folder, writes=False), limit, BUDGET)
    reader.vectors(job["texts"][:4])
    started = time.perf_counter()
    vectors = reader.vectors(job["texts"])
    seconds = time.perf_counter() - started
    np.save(job["vectors"], vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("\n" + json.dumps({"seconds": seconds, "texts": len(vectors), "peak_bytes": peak}))


if __name__ == "__main__":
    main()
