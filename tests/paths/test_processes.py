"""The whole path by several processes, as `torchrun` starts them, on a real tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from journey import SETTINGS, environment, fresh_luthier, run_folder, write_task

from luthier.models import probe_devices


def by_two(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A luthier command by two processes of this machine."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    return subprocess.run(
        [sys.executable, *launch, "luthier.cli", *arguments],
        cwd=folder, env=environment(), text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip


def losses(folder: Path, event: str) -> list[float]:
    lines = (run_folder(folder) / "events.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if entry["event"] == event]


def record(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run_folder(folder) / "run.json").read_text())
    return content


@pytest.mark.parametrize(
    ("sharding", "dtype", "compile_", "tolerance"),
    [
        ("none", "float32", "never", 1e-4), ("fsdp", "float32", "never", 1e-4),
        ("fsdp", "bfloat16", "never", 1e-2), ("fsdp", "float32", "always", 1e-4),
    ],
)  # fmt: skip
def test_two_processes_give_the_run_of_one(
    tmp_path: Path, sharding: str, dtype: str, compile_: str, tolerance: float
) -> None:
    if compile_ == "always" and not probe_devices().can_compile:
        pytest.skip("there is no compiler")
    tuning = {"kind": "lora", "rank": 4} if sharding == "none" else {"kind": "full"}
    runtime = {**SETTINGS["runtime"], "dtype": dtype}
    write_task(tmp_path / "one", tuning=tuning, runtime=runtime)
    apart = {**runtime, "sharding": sharding, "compile": compile_}
    write_task(tmp_path / "two", tuning=tuning, runtime=apart)
    one = fresh_luthier(tmp_path / "one", "train", "recipe.yaml")
    assert one.code == 0, one.error
    two = by_two(tmp_path / "two", "train", "recipe.yaml")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("step 16/16") == 1, "one of them tells"
    for event in ("step", "validation"):
        expected = pytest.approx(losses(tmp_path / "one", event), rel=tolerance)
        assert losses(tmp_path / "two", event) == expected
    assert record(tmp_path / "one")["status"] == record(tmp_path / "two")["status"] == "finished"
    if dtype == "float32":
        assert record(tmp_path / "one")["after"] == record(tmp_path / "two")["after"]
