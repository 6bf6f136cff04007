"""Datasets as versions: names whose states are kept for ever, and how each came to be.

A dataset is a name with a list of versions, each of which points at rows (`contents`) and says what
it was made from. Versions are referred to as NAME (the newest), NAME@NUMBER, NAME@TAG, or NAME@ and
the beginning of the SHA-256 of the rows. Nothing is changed in place: a new state is a new version.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from luthier.errors import ConfigError, StorageError
from luthier.recipe import DATASET
from luthier.runs.contents import SUMMARY, Content, NewRow, keep
from luthier.runs.files import storing, write_atomically
from luthier.runs.locks import waiting_lock
from luthier.runs.workspace import utc_now

LEAST_HASH = 6
"""Characters of a SHA-256 that refer to a version."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RECORD = "dataset.json"


@dataclass(frozen=True, slots=True)
class Version:
    """A state of a dataset."""

    name: str
    number: int
    """From 1, in the order they were made; a deleted one's is not given to another."""
    sha256: str
    """Of its rows, in their order."""
    num_rows: int
    splits: dict[str, int]
    """Rows of each split that some stay in."""
    folder: str
    """Name of the folder that holds them."""
    parent: str
    """Reference to the version it was made from; empty where there is none."""
    made_by: str
    """The command: add, fix, ..."""
    details: dict[str, Any]
    """What it was made of: files with their SHA-256, rules with the rows they touched."""
    created_at: str

    @property
    def reference(self) -> str:
        """How it is referred to."""
        return f"{self.name}@{self.number}"

    @property
    def num_unparted(self) -> int:
        """Rows that stay in no split yet, beside those that do: they are learnt from."""
        return self.num_rows - sum(self.splits.values()) if self.splits else 0

    def rows_in(self, split: str) -> int:
        """Rows that count to a split."""
        return self.splits.get(split, 0) + (self.num_unparted if split == "train" else 0)


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a name."""

    versions: tuple[Version, ...] = ()
    tags: dict[str, int] = field(default_factory=dict)
    last_number: int = 0

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def read(cls, place: Path) -> "Record":
        """What `to_json` wrote. Raises StorageError on anything else."""
        with storing(place):
            text = place.read_bytes().decode("utf-8", "replace")
        try:
            content = json.loads(text)
            versions = tuple(Version(**version) for version in content["versions"])
            return cls(versions, dict(content["tags"]), int(content["last_number"]))
        except (ValueError, TypeError, KeyError) as error:
            raise StorageError(f"is no record of a dataset: {error}", where=str(place)) from error


@dataclass(frozen=True, slots=True)
class Origin:
    """How a version comes to be."""

    made_by: str
    parent: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Datasets:
    """All datasets of a workspace."""

    def __init__(self, workspace: Path, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder, self._clock = workspace / "datasets", clock

    def add(
        self, name: str, rows: Iterable[NewRow], origin: Origin, *, may_be_empty: bool = False
    ) -> tuple[Version, bool]:
        """Keep rows as the newest version of a name, and whether they were new.

        Rows that the newest version holds already are no new version. Raises ConfigError for a
        name that is none, or without rows unless it may be empty.
        """
        if not NAME.fullmatch(name):
            accepted = "at most 64 letters, digits, dots, hyphens and underscores"
            raise ConfigError(f"is {name!r}", where="dataset name", accepted=accepted)
        summary = keep(rows, self._contents).summary
        if not summary.num_rows and not may_be_empty:
            raise ConfigError("would have no row", where=name, accepted="one row or more")
        with self._lock():
            record = self._record(name)
            if not (self._contents / summary.folder).is_dir():
                raise StorageError(
                    "the same rows were deleted in this moment", where=name, advice="add them again"
                )
            if record.versions and record.versions[-1].sha256 == summary.sha256:
                return record.versions[-1], False
            version = Version(
                name, record.last_number + 1, summary.sha256, summary.num_rows, summary.splits,
                summary.folder,
                origin.parent, origin.made_by, dict(origin.details),
                self._clock().isoformat(timespec="seconds"),
            )  # fmt: skip
            changed = replace(
                record, versions=(*record.versions, version), last_number=version.number
            )
            self._write(name, changed)
        return version, True

    def names(self) -> list[str]:
        """Names that have versions, in alphabetical order."""
        with storing(self.folder):
            places = sorted(self.folder.glob(f"*/{RECORD}"))
        return [place.parent.name for place in places if Record.read(place).versions]

    def log(self, name: str) -> tuple[Version, ...]:
        """Versions of a name, oldest first. Raises ConfigError when there is no such dataset."""
        return self._known(name).versions

    def tags(self, version: Version) -> list[str]:
        """Tags that a version bears."""
        tags = self._known(version.name).tags
        return sorted(tag for tag, number in tags.items() if number == version.number)

    def find(self, reference: str) -> Version:
        """The version that a reference means. Raises ConfigError when there is none."""
        name, _, wanted = reference.removeprefix(DATASET).partition("@")
        record = self._known(name)
        if not wanted:
            return record.versions[-1]
        number = record.tags.get(wanted, int(wanted) if _is_number(wanted) else 0)
        of_hash = [
            version
            for version in record.versions
            if len(wanted) >= LEAST_HASH and version.sha256.startswith(wanted)
        ]
        chosen = [version for version in record.versions if version.number == number] or of_hash
        if not chosen:
            known = ", ".join([*(str(v.number) for v in record.versions), *record.tags])
            raise ConfigError(f"has no version {wanted!r}", where=name, accepted=known)
        return chosen[-1]

    def content(self, version: Version) -> Content:
        """The rows of a version."""
        return Content(self._contents / version.folder)

    def tag(self, version: Version, tag: str) -> None:
        """Let a tag mean this version, whatever it meant before."""
        if not NAME.fullmatch(tag) or _is_number(tag):
            accepted = "letters, digits, dots, hyphens and underscores, and not a number alone"
            raise ConfigError(f"is {tag!r}", where="tag", accepted=accepted)
        with self._lock():
            record = self._known(version.name)
            self._write(version.name, replace(record, tags={**record.tags, tag: version.number}))

    def delete(self, version: Version, used_by: Mapping[str, Iterable[str]]) -> None:
        """Forget a version, and its rows unless others hold the same.

        `used_by` maps the SHA-256 of rows to runs that used them; such are not deleted, nor are
        versions that others were made from. Raises ConfigError.
        """
        with self._lock():
            record = self._known(version.name)
            children = [v.reference for v in self._all() if v.parent == version.reference]
            for users, said in (
                (sorted(used_by.get(version.sha256, ())), "is what runs were tuned on"),
                (children, "is what versions were made from"),
            ):
                if users:
                    raise ConfigError(
                        said, where=version.reference, details=users,
                        advice="it stays, so that they can be understood",
                    )  # fmt: skip
            versions = tuple(v for v in record.versions if v != version)
            tags = {tag: number for tag, number in record.tags.items() if number != version.number}
            self._write(version.name, replace(record, versions=versions, tags=tags))
            if all(v.folder != version.folder for v in self._all()):
                # Without its summary it is no content; then the rest may take its time.
                (self._contents / version.folder / SUMMARY).unlink(missing_ok=True)
                shutil.rmtree(self._contents / version.folder, ignore_errors=True)

    @property
    def _contents(self) -> Path:
        return self.folder / ".contents"

    def _lock(self) -> AbstractContextManager[None]:
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return waiting_lock(self.folder / ".lock")

    def _all(self) -> list[Version]:
        return [version for name in self.names() for version in self._record(name).versions]

    def _record(self, name: str) -> Record:
        place = self.folder / name / RECORD
        return Record.read(place) if place.is_file() else Record()

    def _known(self, name: str) -> Record:
        record = self._record(name) if NAME.fullmatch(name) else Record()
        if not record.versions:
            known = ", ".join(self.names()) or "none yet; luthier data add NAME FILE makes one"
            raise ConfigError(f"there is no dataset {name!r}", accepted=known)
        return record

    def _write(self, name: str, record: Record) -> None:
        write_atomically(self.folder / name / RECORD, record.to_json())


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < LEAST_HASH
