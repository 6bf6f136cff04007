"""What the journeys share: a small task on disk, and the command line called as a user calls it."""

import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from luthier.cli import main
from tiny import write_model

SETTINGS: dict[str, dict[str, object]] = {
    "tuning": {"rank": 4},
    "training": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "evaluate_every": 3,
                 "checkpoint_every": 2},
    "evaluation": {"shots": [2], "max_new_tokens": 12, "resamples": 200},
    "runtime": {"dtype": "float32", "threads": 1, "cache": "cache"},
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    error: str


def rows(count: int, start: int = 0) -> list[dict[str, object]]:
    """Rows of a task with exact answers: a number becomes a small JSON object."""
    return [
        {
            "messages": [
                {"role": "system", "content": "Answer with JSON."},
                {"role": "user", "content": f"number {i}"},
                {"role": "assistant", "content": json.dumps({"n": i % 5})},
            ]
        }
        for i in range(start, start + count)
    ]


def write_rows(path: Path, content: Iterable[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


def write_task(folder: Path, **changes: object) -> Path:
    """A model, rows and a recipe in a folder; returns the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        write_model(folder / "model")
    write_rows(folder / "rows.jsonl", rows(40))
    recipe = {"model": "./model", "data": "rows.jsonl", **SETTINGS, **changes}
    if isinstance(recipe["evaluation"], dict):  # what is asked besides takes a second a run
        recipe["evaluation"] = {"general": "none", **recipe["evaluation"]}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def run_folder(folder: Path) -> Path:
    """The folder of the only run."""
    (found,) = (folder / "luthier-workspace" / "runs").iterdir()
    return found


def environment() -> dict[str, str]:
    source = Path(__file__).parents[2] / "src"
    return {**os.environ, "PYTHONPATH": str(source), "PYTHONWARNINGS": "ignore", "COLUMNS": "200"}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a luthier command in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "luthier.cli", *arguments],
        cwd=folder, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def fresh_luthier(folder: Path, *arguments: str) -> Done:
    """Run a luthier command in a folder to its end, in a process of its own."""
    process = start(folder, *arguments)
    out, error = process.communicate(timeout=300)
    return Done(process.returncode, out, error)


def luthier(folder: Path, *arguments: str, typed: str = "") -> Done:
    """Run a luthier command in a folder, in this process: starting one takes seconds."""
    out, error, code = io.StringIO(), io.StringIO(), 0
    with (
        chdir(folder), redirect_stdout(out), redirect_stderr(error), warnings.catch_warnings(),
        pytest.MonkeyPatch.context() as patched,
    ):  # fmt: skip
        warnings.simplefilter("ignore")
        patched.setenv("COLUMNS", "200")
        patched.setattr(sys, "argv", ["luthier", *arguments])
        patched.setattr(sys, "stdin", io.StringIO(typed))
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), error.getvalue())


@contextmanager
def tiny_disk(place: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of that size at `place`, and what makes it larger; skips the test without root."""

    def mount(options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not shutil.which("mount") or not mount(f"size={size}"):
        pytest.skip("mounting a tiny disk needs root")
    try:
        yield (
            lambda larger: (
                pytest.fail("no more room") if not mount(f"remount,size={larger}") else None
            )
        )
    finally:
        subprocess.run(["umount", str(place)], check=True)
