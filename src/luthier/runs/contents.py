"""What datasets hold: rows, kept once, in folders named by what they say and where they are from.

Rows come in one by one and go into Parquet shards, so that any number of them fits; an index finds
a row by its id without reading the others. A folder is there whole or not at all, and never
changes: the same rows from the same places in the same order are the same folder. Knows no names
and no versions.
"""

import hashlib
import json
import shutil
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import parquet

from luthier.data import Split
from luthier.errors import StorageError
from luthier.runs.files import storing, sync_tree, write_atomically
from luthier.runs.locks import instant_lock, is_locked, waiting_lock

SHARD_ROWS, GROUP_ROWS = 2**20, 2**12
"""Rows of a file, and rows that are read at once; the first is a multiple of the second."""
ID_BYTES = 16
"""Of the SHA-256 of a row: among 10**12 rows two differ in it but by a chance of 10**-15."""
SCHEMA = pa.schema(
    [
        ("id", pa.binary(ID_BYTES)),
        ("split", pa.string()),
        ("origin", pa.string()),
        ("fields", pa.string()),
    ]
)
INCOMING, LOCK, INDEX, SUMMARY = "incoming-", ".lock", "index.npy", "content.json"
POSITIONS = np.dtype([("id", "S16"), ("position", "<u8")])

Positions = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to be kept."""

    fields: dict[str, Any]
    split: Split | None
    """The split it stays in; None leaves that to whoever reads it."""
    origin: str
    """Where it is from: file:line, or what made it."""

    @property
    def id(self) -> str:
        """As a kept row has it."""
        return _row_id(self.text).hex()

    @property
    def text(self) -> str:
        """The fields as one line of JSON with sorted keys: equal rows, equal text."""
        return json.dumps(self.fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A row that is kept."""

    id: str
    """32 hexadecimal digits: the beginning of the SHA-256 of what it says."""
    position: int
    """From 1."""
    fields: dict[str, Any]
    split: Split | None
    origin: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of rows without reading them."""

    sha256: str
    num_rows: int
    splits: dict[str, int]
    """Rows of each split that some stay in."""
    origins: str
    """Hash of where the rows are from, in their order."""

    @property
    def folder(self) -> str:
        """Name of the folder: the same rows from elsewhere are in another."""
        return f"{self.sha256}-{self.origins}"


class Content:
    """Rows in a folder that never changes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storing(folder):
            text = (folder / SUMMARY).read_text(encoding="utf-8")
        try:
            self.summary = Summary(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise StorageError(f"is damaged: {error}", where=str(folder / SUMMARY)) from error

    def rows(self) -> Iterator[KeptRow]:
        """All rows, in order; few are held at once."""
        position = 0
        for shard in self._shards:
            with _opened(shard) as file:
                for batch in file.iter_batches(GROUP_ROWS):
                    yield from _kept(batch, position)
                    position += batch.num_rows

    def split_of(self, row: KeptRow) -> Split | None:
        """The split a row counts to: where others are parted, one that is not is learnt from."""
        return row.split or ("train" if self.summary.splits else None)

    def row(self, row_id: str) -> KeptRow | None:
        """The first row with this id, or with the only id that begins like this."""
        begun = row_id.lower()
        if len(begun) > 2 * ID_BYTES or not {*begun} <= {*string.hexdigits}:
            return None
        low, high = (bytes.fromhex(begun.ljust(2 * ID_BYTES, end)) for end in "0f")
        places = self._index
        start = int(np.searchsorted(places["id"], low))
        end = int(np.searchsorted(places["id"], high, side="right"))
        found = places[start:end]
        if not len(found) or len(set(found["id"].tolist())) > 1:
            return None
        return self.at(int(found["position"].min()))

    def at(self, position: int) -> KeptRow:
        """The row at a position from 0; reads its group only."""
        return next(self.some([position]))

    def some(self, positions: Iterable[int]) -> Iterator[KeptRow]:
        """Rows at positions from 0, in this order; neighbours in one group cost one reading."""
        for (shard, group), some in groupby(positions, _group_of):
            with _opened(self._shards[shard]) as file:
                rows = [*_kept(file.read_row_group(group).to_batches()[0], 0)]
            for position in some:
                yield replace(rows[position % GROUP_ROWS], position=position + 1)

    @cached_property
    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet"))

    @cached_property
    def _index(self) -> Positions:
        with storing(self.folder):
            found: Positions = np.load(self.folder / INDEX, mmap_mode="r", allow_pickle=False)
        return found

    def ids(self) -> Positions:
        """Ids [n] in order of size, with the position of each from 0."""
        return self._index


def _group_of(position: int) -> tuple[int, int]:
    shard, rest = divmod(position, SHARD_ROWS)
    return shard, rest // GROUP_ROWS


def keep(rows: Iterable[NewRow], folder: Path) -> Content:
    """Keep rows under their SHA-256 in a folder of contents.

    Any number of processes may do so at once. One that is killed leaves an incoming folder behind,
    which the next one removes.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f"{INCOMING}{uuid4().hex}"
    with ExitStack() as held:
        # Held together: an incoming folder without its lock is taken for an abandoned one.
        with waiting_lock(folder / LOCK):
            _remove_abandoned(folder)
            incoming.mkdir()
            held.callback(shutil.rmtree, incoming, ignore_errors=True)
            held.enter_context(instant_lock(incoming / LOCK))
        summary = _write(rows, incoming)
        with storing(incoming):
            sync_tree(incoming)
        with waiting_lock(folder / LOCK):
            return _put(incoming, folder / summary.folder)


def _remove_abandoned(folder: Path) -> None:
    for other in folder.glob(f"{INCOMING}*"):
        if not is_locked(other / LOCK):
            shutil.rmtree(other, ignore_errors=True)


def _put(incoming: Path, place: Path) -> Content:
    with storing(place):
        if not place.exists():
            (incoming / LOCK).unlink()
            incoming.rename(place)
    return Content(place)


def _write(rows: Iterable[NewRow], folder: Path) -> Summary:
    digest, splits, ids = hashlib.sha256(), Counter[str](), bytearray()
    origins = hashlib.sha256()
    with storing(folder):
        for number, groups in enumerate(_in_shards(_noted(rows, origins.update))):
            for row_id, split in _written(folder / f"rows-{number:05}.parquet", groups):
                ids += row_id
                digest.update(row_id + (split or "").encode() + b"\n")
                splits[split or ""] += 1
        np.save(folder / INDEX, _index(bytes(ids)))
        splits.pop("", None)
        num_rows = len(ids) // ID_BYTES
        summary = Summary(digest.hexdigest(), num_rows, dict(splits), origins.hexdigest()[:16])
        write_atomically(folder / SUMMARY, json.dumps(asdict(summary), indent=1))
    return summary


def _noted(rows: Iterable[NewRow], note: Callable[[bytes], None]) -> Iterator[NewRow]:
    """The rows, after telling where each is from."""
    for row in rows:
        note(row.origin.encode("utf-8", "surrogatepass") + b"\n")
        yield row


def _written(place: Path, groups: Iterable[list[NewRow]]) -> Iterator[tuple[bytes, Split | None]]:
    """Write a shard; id and split of each of its rows."""
    with parquet.ParquetWriter(place, SCHEMA, compression="zstd") as writer:
        for group in groups:
            table = _table(group)
            writer.write_table(table, row_group_size=GROUP_ROWS)
            yield from zip(table["id"].to_pylist(), (row.split for row in group), strict=True)


def _in_shards(rows: Iterable[NewRow]) -> Iterator[Iterator[list[NewRow]]]:
    """Groups of rows, as many as make a shard; each shard's are to be taken before the next's."""
    rest = iter(rows)
    groups = iter(lambda: list(islice(rest, GROUP_ROWS)), [])
    for first in groups:
        yield chain([first], islice(groups, SHARD_ROWS // GROUP_ROWS - 1))


def _table(group: list[NewRow]) -> pa.Table:
    texts = [row.text for row in group]
    ids = [_row_id(text) for text in texts]
    columns = [ids, [row.split for row in group], [row.origin for row in group], texts]
    return pa.Table.from_arrays(
        [pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )


def _row_id(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:ID_BYTES]


def _index(ids: bytes) -> Positions:
    found = np.empty(len(ids) // ID_BYTES, dtype=POSITIONS)
    found["id"] = np.frombuffer(ids, dtype="S16")
    found["position"] = np.arange(len(found))
    return found[np.argsort(found["id"], kind="stable")]


def _kept(batch: pa.RecordBatch, start: int) -> Iterator[KeptRow]:
    columns = (batch.column(name).to_pylist() for name in SCHEMA.names)
    for number, (row_id, split, origin, fields) in enumerate(zip(*columns, strict=True), 1):
        yield KeptRow(row_id.hex(), start + number, json.loads(fields), split, origin)


@contextmanager
def _opened(shard: Path) -> Iterator[parquet.ParquetFile]:
    with storing(shard):
        try:
            with parquet.ParquetFile(shard) as file:
                yield file
        except pa.ArrowException as error:
            raise StorageError(f"is damaged: {error}", where=str(shard)) from error
