"""sentence-transformers' encode on texts of mixed length."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Encode, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(2)
    model = SentenceTransformer(job["model"])
    model.encode(job["texts"][:4])
    started = time.perf_counter()
    vectors = model.encode(job["texts"], show_progress_bar=False, **job["variant"])
    seconds = time.perf_counter() - started
    np.save(job["vectors"], vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("\n" + json.dumps({"seconds": seconds, "texts": len(vectors), "peak_bytes": peak}))


if __name__ == "__main__":
    main()
