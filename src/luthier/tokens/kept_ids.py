"""Ids that were computed before, kept by the hash of all they were computed from.

A run of rows that were encoded already, by the same tokenizer and template, starts at once. A file
that is damaged, or cannot be written, is as if there were none.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from uuid import uuid4
from zipfile import BadZipFile

import msgspec
import numpy as np

Ids = tuple[list[int], tuple[int, ...]]
"""Ids of a text, and a few numbers that belong to them."""
FORMAT = "1"
"""Changes whenever the same text would be encoded otherwise."""
MOST_FILES = 32
"""The ones that were used last are kept."""


class KeptIds:
    """A folder of ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(
        self, made_of: Iterable[object], compute: Callable[[], Sequence[Ids] | None]
    ) -> Sequence[Ids] | None:
        """Ids made of these values, computed unless they are here.

        Values may be anything that msgspec writes. What computes as None is not kept.
        """
        place = self._folder / f"{_key(made_of)}.npz"
        found: Sequence[Ids] | None = _read(place)
        if found is None:
            found = compute()
            if found is not None:
                self._write(place, found)
        return found

    def _write(self, place: Path, items: Sequence[Ids]) -> None:
        unfinished = place.with_name(f".{uuid4().hex}.unfinished")
        ids, marks = [ids for ids, _ in items], [marks for _, marks in items]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                np.savez(
                    file, ids=_flat(ids), ends=_ends(ids), marks=_flat(marks),
                    mark_ends=_ends(marks),
                )  # fmt: skip
            unfinished.replace(place)
            kept = sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
            for old in kept[:-MOST_FILES]:
                old.unlink(missing_ok=True)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()


def _key(made_of: Iterable[object]) -> str:
    digest = hashlib.sha256(FORMAT.encode())
    encoder = msgspec.json.Encoder()
    for value in made_of:
        digest.update(encoder.encode(value) + b"\n")
    return digest.hexdigest()


def _read(place: Path) -> list[Ids] | None:
    try:
        with place.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            ids, marks = (_parts(kept[name], kept[end]) for name, end in
                          (("ids", "ends"), ("marks", "mark_ends")))  # fmt: skip
        os.utime(place)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return [(own, tuple(numbers)) for own, numbers in zip(ids, marks, strict=True)]


def _flat(items: Sequence[Sequence[int]]) -> np.ndarray:
    return np.fromiter((x for item in items for x in item), np.int32)


def _ends(items: Sequence[Sequence[int]]) -> np.ndarray:
    return np.cumsum([len(item) for item in items], dtype=np.int64)


def _parts(flat: np.ndarray, ends: np.ndarray) -> list[list[int]]:
    bounds = [0, *ends.tolist()]
    return [flat[a:b].tolist() for a, b in pairwise(bounds)]
