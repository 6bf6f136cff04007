"""Files, folders, addresses and Hub datasets become local files, each with the split it names.

`https://`, `s3://`, `gs://` and whatever else fsspec knows are fetched to a folder that is removed;
`hf:ORG/NAME` is a dataset of the Hugging Face Hub. A folder may be one of the Hub's, one that
datasets' `save_to_disk` wrote, or any with files of rows.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from luthier.data import READERS, Split, kind_of
from luthier.errors import ConfigError, DataError, LuthierError

HUB = "hf:"
SPLITS: dict[str, Split] = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
NAMED = re.compile(rf"(?:^|[/_.-])({'|'.join(SPLITS)})(?=[/_.-]|$)", re.IGNORECASE)
DESCRIPTIONS = frozenset(
    ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json", "card.json")
)
"""Files that say something about rows, and hold none."""
BLOCK = 2**22


@dataclass(frozen=True, slots=True)
class Gathered:
    """A local file of rows."""

    path: Path
    split: Split | None
    """That its name says; None where it says none."""
    name: str
    """As the user would name it."""


@contextmanager
def gathered(
    sources: Sequence[str], observe: Callable[[str], None] = lambda note: None
) -> Iterator[list[Gathered]]:
    """Local files of all sources. What is fetched goes away at the end.

    Raises:
        ConfigError: nothing that can be fetched, or what it needs is not installed.
        DataError: a folder holds no rows, or an address nothing.
    """
    if "" in sources:
        raise ConfigError("is empty", where="file", accepted="a file, folder or address")
    with tempfile.TemporaryDirectory(prefix="luthier-") as folder:
        found: list[Gathered] = []
        for number, source in enumerate(sources):
            if "://" in source or source.startswith(HUB):
                found += _fetched(source, Path(folder) / str(number), observe)
            elif Path(source).is_dir():
                found += _in_folder(Path(source))
            else:
                found.append(Gathered(Path(source), None, source))
        yield found


def _in_folder(folder: Path) -> list[Gathered]:
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    kept = _rows_among(names)
    if not kept:
        accepted = f"a folder with files of rows ({', '.join(READERS)})"
        raise DataError("holds no rows", where=str(folder), accepted=accepted)
    return [Gathered(folder / name, _split(name), str(folder / name)) for name in kept]


def _rows_among(names: Sequence[str]) -> list[str]:
    """Names of files that hold rows; of a dataset in several layouts, one."""
    kept = [
        name
        for name in sorted(names)
        if not any(part.startswith((".", "_")) for part in Path(name).parts)
        and Path(name).name not in DESCRIPTIONS
        and kind_of(Path(name)) in READERS
    ]
    kinds = {kind_of(Path(name)) for name in kept}
    if len(kinds) > 1:
        # A Hub dataset may hold the same rows in several kinds of files.
        best = next(kind for kind in (".parquet", ".arrow", ".jsonl", *READERS) if kind in kinds)
        others = {_split(name) for name in kept if kind_of(Path(name)) != best}
        kept = [name for name in kept if kind_of(Path(name)) == best]
        missing = others - {_split(name) for name in kept}
        if missing:
            raise DataError(
                f"holds {', '.join(sorted(kinds))} files, of different splits",
                accepted="one kind of file, or the same splits in each",
                advice="name the files one by one, with --validation and --test",
            )
    return kept


def _split(name: str) -> Split | None:
    found = NAMED.findall(name)
    return SPLITS[found[-1].lower()] if found else None


def _fetched(source: str, folder: Path, observe: Callable[[str], None]) -> list[Gathered]:
    address = f"hf://datasets/{source.removeprefix(HUB)}" if source.startswith(HUB) else source
    named = _without_secrets(source)
    try:
        system, path = _opened(address, named)
        is_file = _kind(path) in READERS and "*" not in path
        names = [path] if is_file else _remote_rows(system, path)
        found = []
        for name in names:
            inside = "" if is_file else name.removeprefix(_before_wildcards(path)).strip("/")
            observe(f"fetch {inside or named}")
            place = folder / (inside.replace("/", "-") or Path(_without_query(name)).name)
            _copy(system, name, place)
            split = _split(inside) if inside else None
            found.append(Gathered(place, split, f"{named}#{inside}" if inside else named))
    except LuthierError:
        raise
    except Exception as error:  # every file system has errors of its own
        said = _cause(error).replace(source, named)
        raise DataError(f"cannot be fetched: {said}", where=named) from error
    if not found:
        accepted = f"files of rows ({', '.join(READERS)})"
        raise DataError("holds no rows", where=named, accepted=accepted)
    return found


def _without_secrets(source: str) -> str:
    """An address as it may be written down: without a password, and without what is asked of it."""
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https", "ftp", "sftp", "ssh", "webhdfs"):
        return source
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _without_query(path: str) -> str:
    return urlsplit(path).path if path.startswith(("http://", "https://")) else path


def _kind(path: str) -> str:
    return kind_of(Path(_without_query(path)))


def _cause(error: BaseException) -> str:
    """What is behind an error: file systems name the address alone, and keep the cause inside."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"status {status}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _before_wildcards(path: str) -> str:
    """The folder that a pattern is looked for in; a path without wildcards is one."""
    return path.partition("*")[0].rpartition("/")[0] if "*" in path else path


def _opened(address: str, named: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise ConfigError(f"cannot be fetched: {error}", where=named) from error
    except ValueError as error:
        known = "https://, s3://, gs://, hf:ORG/NAME or a file"
        raise ConfigError(f"cannot be fetched: {error}", where=named, accepted=known) from error
    return system, path


def _remote_rows(system: Any, path: str) -> list[str]:
    if "*" in path:
        return sorted(name for name in system.glob(path) if _kind(name) in READERS)
    inside = {name.removeprefix(path).strip("/"): name for name in system.find(path)}
    return [inside[name] for name in _rows_among(list(inside))]


def _copy(system: Any, name: str, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with system.open(name, "rb") as source, place.open("wb") as target:
        while block := source.read(BLOCK):
            target.write(block)
