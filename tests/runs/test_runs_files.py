"""Atomic files and folders, and the log of lines: against real kills and real limits."""

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import StorageError
from luthier.runs import JsonLines, atomic_folder, write_atomically
from luthier.runs.files import REPLACED, UNFINISHED, tidy

WRITER = """
import sys
from pathlib import Path
from luthier.runs import JsonLines, atomic_folder, write_atomically
place, log = Path(sys.argv[1]), JsonLines(Path(sys.argv[1]) / "log")
print("ready", flush=True)
for number in range(10**9):
    text = str(number % 10) * 50_000
    write_atomically(place / "file", text)
    with atomic_folder(place / "folder") as unfinished:
        (unfinished / "a").write_text(text)
        (unfinished / "b").write_text(text)
    log.append({"number": number, "text": text[:500]})
"""


def is_whole(text: str) -> bool:
    return len(text) == 50_000 and len(set(text)) == 1


def test_a_kill_leaves_old_or_new_and_never_half(tmp_path: Path) -> None:
    delays = random.Random(0)
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(0.02 + delays.random() / 10)
            writer.kill()
        tidy(tmp_path)
        log = JsonLines(tmp_path / "log")
        assert all(len(entry["text"]) == 500 for entry in log.read())
        if (tmp_path / "file").exists():
            assert is_whole((tmp_path / "file").read_text())
        if (tmp_path / "folder").exists():
            a, b = ((tmp_path / "folder" / name).read_text() for name in "ab")
            assert is_whole(a)
            assert a == b
        assert {path.name for path in tmp_path.iterdir()} <= {"file", "folder", "log"}
    assert (tmp_path / "folder").exists()


def test_a_folder_moved_aside_by_a_killed_writer_is_put_back(tmp_path: Path) -> None:
    (tmp_path / f"{REPLACED}0a1b-my-run").mkdir()
    (tmp_path / f"{REPLACED}0a1b-my-run" / "a").write_text("old")
    (tmp_path / f"{UNFINISHED}0a1b-my-run").mkdir()
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["my-run"]
    assert (tmp_path / "my-run" / "a").read_text() == "old"


def test_an_error_inside_the_block_keeps_the_older_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "x") as unfinished:
        (unfinished / "a").write_text("old")
    with pytest.raises(KeyError), atomic_folder(tmp_path / "x") as unfinished:
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, check=False, capture_output=True)
    except OSError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("mounting a tiny disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_the_old_content(tiny_disk: Path) -> None:
    write_atomically(tiny_disk / "file", "old")
    with pytest.raises(StorageError, match=r"disk is full; free some space"):
        write_atomically(tiny_disk / "file", bytes(100_000))
    assert [path.name for path in tiny_disk.iterdir()] == ["file"]
    assert (tiny_disk / "file").read_text() == "old"


def test_a_line_that_did_not_fit_is_not_glued_to_the_next(tiny_disk: Path) -> None:
    log = JsonLines(tiny_disk / "log")
    log.append({"n": 1})
    with pytest.raises(StorageError, match="disk is full"):
        log.append({"n": "x" * 100_000})
    log.append({"n": 3})
    assert [entry["n"] for entry in log.read()] == [1, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_the_log_says_that_a_device_is_full() -> None:
    with pytest.raises(StorageError, match="disk is full"):
        JsonLines(Path("/dev/full")).append({})


def test_a_file_size_limit_is_said(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match="ulimit -f"):
            write_atomically(tmp_path / "file", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="permission denied"):
        write_atomically(tmp_path / "file", "x")


def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        write_atomically(tmp_path / "x" / "y", "")
    (tmp_path / "z").mkdir()
    with pytest.raises(StorageError, match="a folder stands where a file is needed"):
        write_atomically(tmp_path / "z", "")


@settings(deadline=None, max_examples=40)
@given(cut=st.integers(0, 60), tail=st.binary(max_size=12).filter(lambda b: b"\n" not in b))
def test_a_log_cut_anywhere_keeps_its_whole_lines_and_takes_new_ones(
    tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes
) -> None:
    place = tmp_path_factory.mktemp("log") / "log"
    lines = [json.dumps({"n": n}, separators=(",", ":")) + "\n" for n in range(6)]
    content = "".join(lines).encode()[:cut]
    place.write_bytes(content + tail)
    log = JsonLines(place)
    log.append({"n": "new"})
    assert [e["n"] for e in log.read()] == [*range(content.count(b"\n")), "new"]
    log.keep(lambda entry: entry["n"] == "new")
    assert list(log.read()) == [{"n": "new"}]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{}\n{"a\n{}\n')
    with pytest.raises(StorageError, match="log:2"):
        list(JsonLines(tmp_path / "log").read())
