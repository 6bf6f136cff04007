"""The bytes of a file, compressed or not, in bounded memory."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
"""Last suffix -> how the file is compressed."""
BUFFER = 2**20


def kind_of(path: Path) -> str:
    """The suffix that says what a file holds: .jsonl of rows.jsonl and of rows.jsonl.gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def opened(path: Path) -> BinaryIO:
    """The content of a file, decompressed on the way; OSError where it is damaged."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    import pyarrow

    # Its own readline is missing.
    stream = pyarrow.input_stream(str(path), compression=compression, buffer_size=BUFFER)
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), BUFFER))


def lines_of(file: BinaryIO, limit: int) -> Iterator[tuple[bytes, int]]:
    """Lines with their sizes in bytes; of one beyond the limit only the beginning is held."""
    while line := file.readline(limit + 1):
        size, rest = len(line), line
        while size > limit and rest and not rest.endswith(b"\n"):
            rest = file.readline(limit)
            size += len(rest)
        yield line, size
