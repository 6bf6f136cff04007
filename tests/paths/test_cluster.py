"""The whole path on a local Ray cluster of two workers, also when one of them is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from journey import SETTINGS, Done, environment, fresh_luthier, run_folder, start, write_task

from luthier.runs import Mirror, Workspace
from luthier.training.ranks import TIMEOUT

pytest.importorskip("ray", reason="the extra luthier[ray] is missing")

MANY = {
    **SETTINGS["training"],
    "epochs": 40,
    "evaluate_every": 40,
    "patience": 99,
    "checkpoint_every": 4,
}
ON_RAY = ("train", "recipe.yaml", "--ray", "local", "--workers", "1-2")


def losses(folder: Path) -> list[float]:
    lines = (run_folder(folder) / "events.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if entry["event"] == "step"]


def test_two_workers_of_which_one_is_killed_give_the_run_of_one_process(tmp_path: Path) -> None:
    for name in ("plain", "ray"):
        write_task(tmp_path / name, training=MANY)
    plain = fresh_luthier(tmp_path / "plain", "train", "recipe.yaml")
    assert plain.code == 0, plain.error
    process = start(tmp_path / "ray", *ON_RAY)
    kill_a_worker_after(tmp_path / "ray", num_steps=30, of=process.pid)
    out, error = process.communicate(timeout=300)
    done = Done(process.returncode, out, error)
    assert done.code == 0, done
    assert (
        json.loads((run_folder(tmp_path / "ray") / "run.json").read_text())["status"] == "finished"
    )
    expected = losses(tmp_path / "plain")
    assert len(expected) == 320
    found = losses(tmp_path / "ray")
    assert len(found) == 320
    # Well past the kill; after hundreds of large steps, rounding has grown into differences.
    assert found[:60] == pytest.approx(expected[:60], rel=1e-3)
    assert "going on with" in out, "the run was taken up again"


def kill_a_worker_after(folder: Path, num_steps: int, of: int) -> None:
    """SIGKILL to the second worker when that many steps are done."""
    runs = folder / "luthier-workspace" / "runs"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if list(runs.glob("*/events.jsonl")) and len(losses(folder)) >= num_steps:
            break
        time.sleep(0.05)
    family = psutil.Process(of).children(recursive=True)
    workers = [p for p in family if "RayTrainWorker" in " ".join(p.cmdline())]
    assert len(workers) == 2, [p.cmdline() for p in family]
    os.kill(workers[-1].pid, signal.SIGKILL)


WATCHED = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
from luthier.pipeline import Cluster, tune_on_ray
from luthier.recipe import read_recipe

place = Path.cwd() / "timeout"

def note_timeout(say):
    exchange = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    place.write_text(str(exchange.options._timeout.total_seconds()))
    return lambda event: None

tune_on_ray(read_recipe(Path("recipe.yaml")), Cluster("local", (1, 1)), note_timeout)
"""


def test_workers_wait_as_long_as_the_first_one_needs_for_the_prompts(tmp_path: Path) -> None:
    write_task(tmp_path)
    (tmp_path / "watched.py").write_text(WATCHED)
    done = subprocess.run(
        [sys.executable, "watched.py"], cwd=tmp_path, env=environment(), timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert float((tmp_path / "timeout").read_text()) == TIMEOUT.total_seconds()


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    write_task(tmp_path)
    done = fresh_luthier(tmp_path, "train", "recipe.yaml", "--ray", "127.0.0.1:1", "--workers", "2")
    assert done.code == 2
    assert "no Ray cluster can be reached" in done.error
    for options, advice in (
        (("--workers", "2"), "add --ray local, or start the command with torchrun"),
        (("--storage", "file:///tmp"), "add --ray local"),
        (("--ray", "local", "--profile"), "--profile: measures one process"),
    ):
        done = fresh_luthier(tmp_path, "train", "recipe.yaml", *options)
        assert done.code == 2
        assert advice in done.error


def test_what_a_worker_refuses_is_said_as_without_a_cluster(tmp_path: Path) -> None:
    """Here, a learning rate after which no loss is a number."""
    write_task(tmp_path, training={**SETTINGS["training"], "learning_rate": 1e30})
    done = fresh_luthier(tmp_path, *ON_RAY[:4], "--workers", "1")
    assert done.code == 2, done
    said = done.error.splitlines()[-1]
    assert said.startswith("error: step 2: the loss is nan")
    assert said.endswith("lower training.learning_rate; the last checkpoint is untouched")


def test_a_run_goes_on_from_the_storage_where_nothing_of_it_is_left(tmp_path: Path) -> None:
    """As on another cluster, whose disks know nothing of the run."""
    storage = (tmp_path / "storage").as_uri()
    write_task(tmp_path, training=MANY)
    command = (*ON_RAY[:4], "--workers", "1", "--storage", storage)
    process = start(tmp_path, *command)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "storage").glob("runs/*/checkpoints/step-*/sha256.json")):
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    for pid in (*(member.pid for member in family), process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    shutil.rmtree(tmp_path / "luthier-workspace" / "runs")
    (tmp_path / "luthier-workspace" / "luthier.db").unlink()
    done = fresh_luthier(tmp_path, *command)
    assert done.code == 0, done.error
    assert "going on with" in done.out
    assert len(losses(tmp_path)) == 320
    (copied,) = (tmp_path / "storage" / "runs").iterdir()
    assert (copied / "report.html").read_bytes() == (
        run_folder(tmp_path) / "report.html"
    ).read_bytes()


ON_NODES = """
import os, sys
from pathlib import Path
from luthier.pipeline.cluster import pull_to_nodes
from luthier.runs import Mirror
from luthier.training import join_ranks, leave_ranks

join_ranks("cpu")
rank, local_rank = int(os.environ["RANK"]), int(os.environ["RANK"]) % 2
mirror = Mirror(sys.argv[1], Path(f"node-{int(os.environ['RANK']) // 2}"))
pull_to_nodes(mirror, rank, local_rank)
assert list(Path(f"node-{rank // 2}").glob("runs/*/run.json")), rank
leave_ranks()
"""


def test_runs_are_brought_to_every_node_before_one_is_looked_for(tmp_path: Path) -> None:
    """Such as one that another starts from; two nodes of two workers each."""
    here, url = Workspace.open(tmp_path / "here"), (tmp_path / "store").as_uri()
    run = here.start(
        "rows", {}, recipe_hash="r", data_fingerprint="d", data_files={}, model_source="m",
        model_revision="", model_sha256="s",
    )  # fmt: skip
    here.close()
    Mirror(url, tmp_path / "here").push(run.id)
    (tmp_path / "nodes.py").write_text(ON_NODES)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"]
    done = subprocess.run(
        [sys.executable, *launch, "nodes.py", url], cwd=tmp_path, env=environment(), timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--storage", "nowhere://bucket"), "a URL that fsspec knows"),
        (("--storage", "file:///tmp", "--set", "runtime.sharding=fsdp"), "writes a part"),
        (("--workers", "3-2"), "fewest and most such as 1-4"),
        (("--workers", "many"), "fewest and most such as 1-4"),
    ],
)
def test_what_a_cluster_cannot_do_is_said(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    write_task(tmp_path)
    done = fresh_luthier(tmp_path, "train", "recipe.yaml", "--ray", "local", *options)
    assert done.code == 2
    assert said in done.error
