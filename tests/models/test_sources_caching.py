"""Folders of the cache are whole or absent, whoever is killed and however many make them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from luthier.errors import StorageError
from luthier.models.sources.caching import STALE_SECONDS, file_sha256, make_folder

SCRIPT = """
import sys, time
from pathlib import Path
from luthier.models.sources.caching import make_folder
def build(folder):
    (folder / "first").write_text("1")
    print("begun", flush=True)
    sys.stdin.readline()
    (folder / "second").write_text("2")
print(make_folder(Path(sys.argv[1]), build))
"""


def start(place: Path) -> "subprocess.Popen[str]":
    """A process that has begun to make the folder, and goes on when told to."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(place)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_two_processes_and_a_killed_one_leave_one_whole_folder(tmp_path: Path) -> None:
    place = tmp_path / "cache" / "entry"
    killed, first, second = (start(place) for _ in range(3))
    killed.kill()
    killed.communicate()
    assert not place.exists()
    for process in (first, second):
        answer, complaint = process.communicate("go\n")
        assert (answer.strip(), complaint) == (str(place), "")
        assert sorted(p.name for p in place.iterdir()) == ["first", "second"]
    assert [p.name for p in place.parent.iterdir() if not p.name.startswith(".")] == ["entry"]


def test_what_a_killed_process_left_is_removed_a_day_later(tmp_path: Path) -> None:
    place = tmp_path / "entry"
    stale, recent = tmp_path / ".entry.stale", tmp_path / ".entry.recent"
    stale.mkdir()
    recent.mkdir()
    yesterday = time.time() - STALE_SECONDS - 1
    os.utime(stale, (yesterday, yesterday))
    make_folder(place, lambda folder: (folder / "x").touch())
    assert (stale.exists(), recent.exists(), place.exists()) == (False, True, True)


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"No space left.*free some space"):
        make_folder(tmp_path / "cache" / "entry", fail)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_entry_is_as_readable_as_the_cache_around_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    def build(folder: Path) -> None:
        (folder / "private").touch(mode=0o600)

    place = make_folder(tmp_path / "entry", build)
    assert place.stat().st_mode & 0o777 == 0o755
    assert (place / "private").stat().st_mode & 0o777 == 0o644


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    file, cache = tmp_path / "file", tmp_path / "cache"
    file.write_text("one")
    first = file_sha256(file, cache)
    file.write_text("two")
    assert file_sha256(file, cache) != first
