"""Luthier on a few rows of each class: `luthier.tune` with nothing set but the data."""

import json
import resource
import sys
import tempfile
from pathlib import Path

import luthier


def main() -> None:
    """Train, ask, and print what was measured: the time of training, without baselines."""
    job = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.write_text("\n".join(json.dumps(row) for row in job["train"]), encoding="utf-8")
        test = Path(folder) / "test.jsonl"
        test.write_text("\n".join(json.dumps(row) for row in job["test"][:8]), encoding="utf-8")
        run = luthier.tune(
            model=job["model"],
            data={"train": str(rows), "test": str(test), "validation_share": 0.0},
            method="classify",
            runtime={"workspace": str(Path(folder) / "workspace")},
        )
        report = json.loads(run.run.path("report.json").read_text(encoding="utf-8"))
        given = run.predict([row["text"] for row in job["test"]])
    seconds = sum(t["seconds"] for t in report["timings"] if t["stage"] == "train")
    right = sum(a.text == row["label"] for a, row in zip(given, job["test"], strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": seconds, "right": right, "of": len(job["test"]), "peak_bytes": peak}
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
