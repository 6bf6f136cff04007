"""What was measured, as Markdown.

    python -m benchmarks.table [FILE ...]

Medians over the repeats, with the range of the ratios: a repeat is compared with the same repeat.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.measuring import TOLERANCE

RESULTS = Path(__file__).parent / "results"
LEAST_COSINE = 0.999
"""Of a vector with its counterpart: they may round in bfloat16."""

Measurement = dict[str, Any]


def main() -> None:
    """Print the table of every result."""
    files = [Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("*-*.json"))
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        kind = "workload" if "workload" in found else "data" if "data" in found else "task"
        print(
            "\n".join({"workload": render, "data": render_data, "task": render_texts}[kind](found))
        )


def render(found: dict[str, Any]) -> list[str]:
    """One workload's table, and what stands beneath it."""
    ours = found["runs"]["luthier"]
    lines = [
        f"### {found['task']}, ({found['workload']}) {found['about']}",
        "",
        "| | tokens/s | learnt tokens/s | peak GiB | Luthier is | memory of Luthier | same work |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in found["runs"].items():
        failed = next((run["failed"] for run in runs if "failed" in run), None)
        if failed is not None:
            lines.append(f"| {name} | failed: {failed.splitlines()[-1][:80]} | | | | | |")
            continue
        cells = [
            f"{_median(runs, 'tokens'):.0f}",
            f"{_median(runs, 'supervised'):.1f}",
            f"{_peak(runs):.2f}",
        ]
        if name != "luthier":
            cells += [_ratio(ours, runs), f"{_peak(ours) / _peak(runs):.0%}", _same(found, runs)]
        else:
            cells += ["", "", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *_losses(found), "", _settings(found), ""]
    return lines


def render_texts(found: dict[str, Any]) -> list[str]:
    """The table of a task whose work is equal in what comes out, not step by step."""
    ours = found["runs"]["luthier"]
    lines = [f"### {found['task']}", "", "| | seconds | peak GiB | Luthier is | |",
             "|---|---|---|---|---|"]  # fmt: skip
    for name, runs in found["runs"].items():
        seconds = statistics.median(run["seconds"] for run in runs)
        extra = {k: v for k, v in runs[0].items() if k not in ("seconds", "peak_bytes")}
        said = ", ".join(f"{k} {v}" for k, v in extra.items())
        if any(run.get("cosine", 1.0) < LEAST_COSINE for run in runs):
            said = f"VOID: {said}"
        ratio = "" if name == "luthier" else _ratio(ours, runs)
        lines.append(f"| {name} | {seconds:.1f} | {_peak(runs):.2f} | {ratio} | {said} |")
    return [*lines, ""]


def render_data(found: dict[str, Any]) -> list[str]:
    """The table of a comparison of the data workbench."""
    ours = found["runs"]["luthier"]
    lines = [f"### {found['data']}", "", "| | seconds | once again | peak GiB | Luthier is | |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name, runs in found["runs"].items():
        seconds = statistics.median(run["seconds"] for run in runs)
        again = statistics.median(run.get("again", 0.0) for run in runs)
        told = ("planted", "of", "others", "wrong")
        said = ", ".join(f"{key} {runs[0][key]}" for key in told if key in runs[0])
        if any(run.get("ids") != ours[0].get("ids") or run.get("right") is False for run in runs):
            said = f"VOID: {said}"
        ratio = "" if name == "luthier" else _ratio(ours, runs)
        cells = (name, f"{seconds:.1f}", f"{again:.1f}" if again else "", f"{_peak(runs):.2f}")
        lines.append(f"| {' | '.join(cells)} | {ratio} | {said} |")
    return [*lines, ""]


def _median(runs: list[Measurement], count: str) -> float:
    return float(statistics.median(run[count] / run["seconds"] for run in runs))


def _peak(runs: list[Measurement]) -> float:
    return float(statistics.median(run["peak_bytes"] for run in runs)) / 2**30


def _ratio(ours: list[Measurement], theirs: list[Measurement]) -> str:
    """How many times our speed is theirs: median and range over repeats."""
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"


def _same(found: dict[str, Any], theirs: list[Measurement]) -> str:
    """Whether both computed on the same ids and labels, and came to the same losses.

    Rounding shows in losses: a peer may agree with Luthier in float32, or rounding as is usual.
    """
    ours, b = found["runs"]["luthier"][0], theirs[0]
    if ours["seen"] != b["seen"]:
        return "VOID: other ids or labels"
    for name, like in {"": ours, **found["references"]}.items():
        gap = _gap(like, b)
        if gap <= TOLERANCE:
            return f"yes{name and f', as Luthier {name}'} (within {gap:.3f})"
    return f"VOID: losses differ (by {_gap(ours, b):.3f})"


def _gap(a: Measurement, b: Measurement) -> float:
    """Largest difference of their losses, in steps and on held-out rows."""
    pairs = [*zip(a["losses"], b["losses"], strict=True), (a["held_out"], b["held_out"])]
    return float(max(abs(x - y) for x, y in pairs))


def _losses(found: dict[str, Any]) -> list[str]:
    lines = ["Losses of the first steps, then on held-out rows:", ""]
    measured = {name: runs[0] for name, runs in found["runs"].items()}
    measured |= {f"luthier {name}": run for name, run in found["references"].items()}
    for name, run in measured.items():
        if "losses" in run:
            losses = " ".join(f"{loss:.3f}" for loss in run["losses"])
            lines.append(f"- {name}: {losses}; {run['held_out']:.4f}")
    return lines


def _settings(found: dict[str, Any]) -> str:
    chosen = "; ".join(
        f"{name}: {', '.join(f'{k} {v}' for k, v in variant.items())}"
        for name, variant in found["variants"].items()
        if variant
    )
    repeats = len(found["runs"]["luthier"])
    how = (
        f"{found['steps']} steps of {found['batch_size']}, {repeats} repeats in turns, Luthier in "
        f"{found['precision']}; {found['machine']['cores']} cores, {found['machine']['processor']}."
    )
    return f"{how} {chosen}." if chosen else how


if __name__ == "__main__":
    main()
