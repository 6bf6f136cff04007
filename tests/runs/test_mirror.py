"""Runs at a URL: what is sent comes back, what is further is kept, what breaks off is no loss."""

from pathlib import Path

import pytest

from luthier.errors import ConfigError, StorageError
from luthier.runs import Mirror, Workspace

IDENTITY = {
    "recipe_hash": "r", "data_fingerprint": "d", "data_files": {"d.jsonl": "0"},
    "model_source": "m", "model_revision": "", "model_sha256": "s",
}  # fmt: skip


def started(folder: Path) -> str:
    workspace = Workspace.open(folder)
    run = workspace.start("rows", {"recipe.yaml": "model: m\n"}, **IDENTITY)
    workspace.close()
    return run.id


def checkpoint(folder: Path, run_id: str, step: int) -> None:
    place = folder / "runs" / run_id / "checkpoints" / f"step-{step:08d}"
    place.mkdir(parents=True)
    (place / "state.json").write_text(str(step))


def names(folder: Path) -> list[str]:
    runs = folder / "runs"
    return sorted(
        str(f.relative_to(runs)) for f in runs.rglob("*") if f.is_file() and f.name != ".lock"
    )


def test_a_run_comes_back_as_it_was_sent(tmp_path: Path) -> None:
    here, there, url = tmp_path / "here", tmp_path / "there", (tmp_path / "store").as_uri()
    run_id = started(here)
    checkpoint(here, run_id, 1)
    sender = Mirror(url, here)
    sender.push(run_id)
    checkpoint(here, run_id, 2)
    (here / "runs" / run_id / "checkpoints" / "step-00000001" / "state.json").unlink()
    sender.push(run_id)
    Mirror(url, there).pull()
    assert names(there) == names(here)
    workspace = Workspace.open(there)
    assert [run.id for run in workspace.list()] == [run_id]
    workspace.close()


def test_a_run_that_is_further_here_is_kept(tmp_path: Path) -> None:
    here, url = tmp_path / "here", (tmp_path / "store").as_uri()
    run_id = started(here)
    mirror = Mirror(url, here)
    mirror.push(run_id)
    checkpoint(here, run_id, 5)
    before = names(here)
    mirror.pull()
    assert names(here) == before


def test_an_empty_storage_gives_nothing(tmp_path: Path) -> None:
    Mirror((tmp_path / "store").as_uri(), tmp_path / "here").pull()
    assert not (tmp_path / "here").exists()


def test_a_text_beside_the_runs(tmp_path: Path) -> None:
    mirror = Mirror((tmp_path / "store").as_uri(), tmp_path)
    mirror.write("note", "found")
    assert mirror.read("note") == "found"
    with pytest.raises(StorageError, match="cannot be used"):
        mirror.read("nothing")


def test_an_unknown_kind_of_url_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a URL that fsspec knows"):
        Mirror("nowhere://bucket", tmp_path)
