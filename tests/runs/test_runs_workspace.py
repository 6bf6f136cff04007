"""Workspaces: what is found, resumed, locked and rebuilt, on real SQLite and real processes."""

import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from luthier.errors import ConfigError, StorageError
from luthier.runs import Run, Workspace
from luthier.runs.database import RUNS
from luthier.runs.tables import Table

IDENTITY: dict[str, Any] = {
    "recipe_hash": "r", "data_fingerprint": "d", "data_files": {"a.jsonl": "0"},
    "model_source": "m", "model_revision": "", "model_sha256": "s",
}  # fmt: skip
HOLDER = """
import sys
from pathlib import Path
from luthier.runs import Workspace
with Workspace.open(Path(sys.argv[1])).find(sys.argv[2]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""
OPENER = """
import sys
from pathlib import Path
import alembic.command, luthier.runs.database
from luthier.runs import Workspace
print("ready", flush=True)
sys.stdin.readline()
Workspace.open(Path(sys.argv[1])).start(sys.argv[2], {}, recipe_hash="r", data_fingerprint="d",
    data_files={}, model_source="m", model_revision="", model_sha256="s")
"""


def at(hour: int) -> datetime:
    return datetime(2026, 11, 21, hour, 30, 12, tzinfo=UTC)


def start(workspace: Workspace, name: str = "smart-home", **changes: Any) -> Run:
    return workspace.start(name, {"recipe.yaml": "model: x\n"}, **{**IDENTITY, **changes})


def spawn(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def indexed(folder: Path) -> dict[str, str]:
    with sqlite3.connect(folder / "luthier.db") as connection:
        found = dict(connection.execute("SELECT id, status FROM runs").fetchall())
    connection.close()
    return found


def test_a_run_has_a_folder_a_record_and_an_index_entry(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path, clock=lambda: at(6))
    run = start(workspace)
    assert run.id.startswith("20261121-063012-smart-home-")
    assert run.path("recipe.yaml").read_text() == "model: x\n"
    run.finish("finished", decision="better", metric="exact", before=0.1, after=0.7)
    assert workspace.find(run.id).record == run.record
    assert indexed(tmp_path) == {run.id: "finished"}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/", "..", "a/b\0c", "x" * 300, ""])
def test_no_name_leads_out_of_the_workspace(tmp_path: Path, name: str) -> None:
    run = start(Workspace.open(tmp_path), name)
    assert run.folder.parent == tmp_path / "runs"
    assert run.folder.is_dir()


def test_a_seeded_training_does_not_make_equal_ids(tmp_path: Path) -> None:
    import random

    workspace, ids = Workspace.open(tmp_path, clock=lambda: at(6)), set()
    for _ in range(5):
        random.seed(0)
        ids.add(start(workspace).id)
    assert len(ids) == 5


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with pytest.raises(StorageError):
        workspace.start("x", {"a": "", "a/b": ""}, **IDENTITY)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_is_found_by_id_beginning_name_and_folder(tmp_path: Path) -> None:
    hours = iter([6, 6, 7, 7])
    workspace = Workspace.open(tmp_path, clock=lambda: at(next(hours)))
    first, second = start(workspace, "one"), start(workspace, "two")
    for wanted in (first.id, "20261121-0630", "one", str(first.folder)):
        assert workspace.find(wanted).id == first.id
    assert workspace.find("two").id == second.id
    with pytest.raises(ConfigError, match="2 runs begin"):
        workspace.find("2026")
    with pytest.raises(ConfigError, match="did you mean two"):
        workspace.find("twoo")
    for wanted in ("", "x" * 5000):
        with pytest.raises((ConfigError, StorageError)):
            workspace.find(wanted)


def test_one_damaged_record_does_not_hide_the_other_runs(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    damaged, binary, sound = (start(workspace, name) for name in ("a", "b", "c"))
    damaged.path("run.json").write_text("{")
    binary.path("run.json").write_bytes(b"\xff\xfe")
    assert [run.id for run in workspace.list()] == [sound.id]
    assert {Path(error.where).parent.name for error in workspace.unreadable} == {
        damaged.id, binary.id,
    }  # fmt: skip
    resumable = workspace.resumable("r", "d", "s")
    assert resumable is not None
    assert resumable.id == sound.id


def test_the_newest_unfinished_run_of_the_same_things_is_resumed(tmp_path: Path) -> None:
    hours = iter(range(24))
    workspace = Workspace.open(tmp_path, clock=lambda: at(next(hours) // 2))
    start(workspace)
    newest, other, done = start(workspace), start(workspace, data_fingerprint="e"), start(workspace)
    newest.update(status="interrupted")
    done.update(status="finished")
    resumable = workspace.resumable("r", "d", "s")
    assert resumable is not None
    assert resumable.id == newest.id != other.id
    assert workspace.resumable("r", "d", "t") is None


def test_two_processes_cannot_work_on_one_run_and_a_kill_frees_it(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    run = start(workspace)
    with spawn(HOLDER, tmp_path, run.id) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        run.update(status="running")
        assert workspace.list()[0].record.status == "running"
        with pytest.raises(ConfigError, match=f"number {holder.pid}"), run.lock():
            pass
        holder.kill()
    assert workspace.list()[0].record.status == "interrupted"
    run.path(".unfinished-0a-report.html").write_text("half")
    with run.lock():
        assert not run.path(".unfinished-0a-report.html").exists()


def test_processes_that_open_a_fresh_workspace_at_once_all_succeed(tmp_path: Path) -> None:
    openers = [spawn(OPENER, tmp_path, f"run-{number}") for number in range(3)]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    assert [opener.communicate()[1] for opener in openers] == ["", "", ""]
    assert len(indexed(tmp_path)) == 3


def test_a_lost_index_is_made_again_from_the_folders(tmp_path: Path) -> None:
    run = start(Workspace.open(tmp_path))
    (tmp_path / "luthier.db").unlink()
    Workspace.open(tmp_path)
    assert indexed(tmp_path) == {run.id: "created"}


def test_the_migrations_make_the_tables_the_code_expects(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path)
    with workspace._database._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    config = Config()
    config.set_main_option("script_location", str(RUNS.migrations))
    assert ScriptDirectory.from_config(config).get_current_head() == RUNS.revision


def test_a_migration_that_breaks_off_leaves_no_half_made_tables(tmp_path: Path) -> None:
    place = tmp_path / "luthier.db"
    with sqlite3.connect(place) as connection:
        connection.execute("CREATE TABLE runs (x)")  # the last table the migration makes
    connection.close()
    with pytest.raises(StorageError, match="runs already exists"):
        Workspace.open(tmp_path)
    with sqlite3.connect(place) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        assert tables.fetchall() == [("runs",)]
    connection.close()


def test_a_database_of_a_newer_luthier_is_refused(tmp_path: Path) -> None:
    Workspace.open(tmp_path)
    with sqlite3.connect(tmp_path / "luthier.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StorageError, match="newer Luthier"):
        Workspace.open(tmp_path)


@pytest.mark.parametrize("url", ["nonsense", "nosuch://h/d", "postgresql+nosuch://u:geheim@h/d"])
def test_a_wrong_database_url_is_said_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Workspace.open(tmp_path, url)
    assert "geheim" not in str(caught.value)


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "luthier.db").write_bytes(b"x" * 5000)
    with pytest.raises(StorageError, match="not a database"):
        Workspace.open(tmp_path)


def test_an_up_to_date_workspace_opens_without_alembic(tmp_path: Path) -> None:
    Workspace.open(tmp_path)
    code = (
        "import sys, pathlib; import luthier.runs; assert 'sqlalchemy' not in sys.modules;"
        "luthier.runs.Workspace.open(pathlib.Path(sys.argv[1]));"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
