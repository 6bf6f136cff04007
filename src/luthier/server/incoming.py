"""Files in multipart bodies, block by block from the socket to the disk.

A body of any size takes no more memory than a block. Names and types that clients give are kept as
words; nothing is stored under them.
"""

from dataclasses import dataclass, field

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from luthier.jobs import Files
from luthier.jobs.files import Incoming
from luthier.server.errors import ApiError

MAX_FIELD = 64 * 2**10
"""Bytes of a field that is no file."""
MAX_FIELDS = 32


@dataclass
class Form:
    """What a multipart body holds: fields, and one file."""

    fields: dict[str, str] = field(default_factory=dict)
    file: Incoming | None = None
    filename: str = ""

    def discard(self) -> None:
        """Forget the file."""
        if self.file is not None:
            self.file.discard()


async def read_form(request: Request, files: Files, file_field: str, limit: int) -> Form:
    """Read a body with one file of at most `limit` bytes, in the field of this name.

    Raises ApiError for a body that is none, or too large; nothing of it is then kept.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(400, "The body must be multipart/form-data with a boundary.")
    reading, form = _Reading(boundary, file_field), Form()
    try:
        async for block in request.stream():
            for part, data in reading.take(block):
                await _keep(form, part, data, files, limit)
        if not reading.is_over:
            raise ApiError(400, "The multipart body ends in the middle.")
    except MultipartParseError as error:
        form.discard()
        raise ApiError(400, f"The multipart body cannot be read: {error}") from error
    except BaseException:
        form.discard()
        raise
    if form.file is None:
        raise ApiError(400, f"'{file_field}' is a required file.", param=file_field)
    return form


async def _keep(form: Form, part: "_Part", data: bytes, files: Files, limit: int) -> None:
    if not part.is_file:
        form.fields[part.name] = form.fields.get(part.name, "") + data.decode("utf-8", "replace")
        if len(form.fields[part.name]) > MAX_FIELD or len(form.fields) > MAX_FIELDS:
            raise ApiError(400, "The fields of the form are too large or too many.")
        return
    if form.file is None:
        form.file, form.filename = files.begin(), part.filename
    if form.file.size + len(data) > limit:
        message = f"The file is larger than {limit:,} bytes; use the Uploads API, in parts."
        raise ApiError(413, message, param="file", code="file_too_large")
    await run_in_threadpool(form.file.write, data)


@dataclass
class _Part:
    """One part of a body."""

    name: str = ""
    filename: str = ""
    is_file: bool = False


class _Reading:
    """The parser's callbacks, gathered until the loop can wait for the disk."""

    def __init__(self, boundary: bytes, file_field: str) -> None:
        self._file_field, self._part = file_field, _Part()
        self._name, self._value = b"", b""
        self._told: list[tuple[_Part, bytes]] = []
        self.is_over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._more_name,
                "on_header_value": self._more_value,
                "on_header_end": self._header,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    def take(self, block: bytes) -> list[tuple[_Part, bytes]]:
        """Parse a block; the data of parts that came with it."""
        self._parser.write(block)
        told, self._told = self._told, []
        return told

    def _begin(self) -> None:
        self._part = _Part()

    def _more_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _more_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        name, value, self._name, self._value = self._name, self._value, b"", b""
        if name.lower() != b"content-disposition":
            return
        _, options = parse_options_header(value)
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        self._part.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._part.is_file = self._part.name == self._file_field
        self._told.append((self._part, b""))  # also where nothing follows

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._told.append((self._part, data[start:end]))

    def _end(self) -> None:
        self.is_over = True
