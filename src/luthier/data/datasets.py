"""Files become a dataset, with a list of everything that is wrong with them.

No row is dropped in silence: a row that cannot be used is a finding, and findings that are errors
refuse the whole (`refuse_errors`) until the caller has shown them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.data.examples import Chat, Dataset, Finding, Split, canonical
from luthier.data.formats import Format, convert, describe_formats, recognise
from luthier.data.reading import hash_bytes, read_rows
from luthier.data.splitting import limit_by_hash, prompt_key, split_by_hash
from luthier.errors import DataError
from luthier.recipe import Data

MAX_LISTED = 50


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, and what is wrong with it."""

    dataset: Dataset
    findings: tuple[Finding, ...]
    num_rows: dict[str, int]
    """File -> rows that could be read as rows."""
    formats: dict[str, str]
    """File -> the layout it was recognised as."""


def read_dataset(data: Data) -> Reading:
    """Read all files of a recipe. Raises DataError for a file that cannot be rows at all."""
    files: dict[Split, Path] = {"train": data.train}
    if data.validation is not None:
        files["validation"] = data.validation
    if data.test is not None:
        files["test"] = data.test
    read = {split: _read_file(path, data.format) for split, path in files.items()}
    findings = [finding for file in read.values() for finding in file.findings]
    findings += _duplicate_ids([chat for file in read.values() for chat in file.chats])
    splits = split_by_hash(
        read["train"].chats,
        0.0 if "validation" in files else data.validation_share,
        0.0 if "test" in files else data.test_share,
    )
    for split in ("validation", "test"):
        if split in read:
            splits[split] = list(read[split].chats)
            findings += _leaks(splits["train"], splits[split])
    findings += _repeats(splits["train"])
    dataset = Dataset(
        tuple(limit_by_hash(splits["train"], data.limit)),
        tuple(splits["validation"]),
        tuple(splits["test"]),
        {str(path): hash_bytes(path) for path in files.values()},
    )
    return Reading(
        dataset,
        tuple(findings),
        {str(files[split]): file.num_rows for split, file in read.items()},
        {str(files[split]): file.format for split, file in read.items()},
    )


@dataclass(frozen=True, slots=True)
class _FileRead:
    chats: tuple[Chat, ...]
    findings: tuple[Finding, ...]
    num_rows: int
    format: str


def _read_file(path: Path, wanted: str) -> _FileRead:
    findings: list[Finding] = []
    chats: list[Chat] = []
    layout: Format | None = None
    num_rows = 0
    for row in read_rows(path, findings.append):
        num_rows += 1
        found = recognise(row.fields, wanted)
        layout = layout or found
        if found is None or found is not layout:
            fields = ", ".join(map(str, row.fields)) or "none"
            accepted = " + ".join(sorted(layout.fields)) if layout else describe_formats()
            findings.append(
                Finding(row.place, "unknown-layout", "", f"has the fields {fields}", accepted)
            )
            continue
        chat = convert(layout, row, findings.append)
        if chat is not None:
            chats.append(chat)
    if not num_rows and not findings:
        raise DataError("holds no row", where=str(path), accepted="one row a line")
    return _FileRead(tuple(chats), tuple(findings), num_rows, layout.name if layout else "")


def _duplicate_ids(chats: Sequence[Chat]) -> list[Finding]:
    first: dict[str, Chat] = {}
    findings = []
    for chat in chats:
        earlier = first.setdefault(chat.id, chat)
        if earlier is not chat:
            found = f"is {chat.id!r}, as in {earlier.place}"
            findings.append(
                Finding(chat.place, "duplicate-id", "id", found, "a distinct id for every row")
            )
    return findings


def _leaks(train: Sequence[Chat], held_out: Sequence[Chat]) -> list[Finding]:
    known = {prompt_key(chat): chat for chat in reversed(train)}
    return [
        _warning(chat, "leaked-prompt", f"asks the same as {known[key].place}",
                 "held-out prompts that are not in the training rows")
        for chat in held_out
        if (key := prompt_key(chat)) in known
    ]  # fmt: skip


def _repeats(train: Sequence[Chat]) -> list[Finding]:
    first: dict[str, Chat] = {}
    return [
        _warning(chat, "repeated-row", f"says the same as {earlier.place}", "distinct rows")
        for chat in train
        if (earlier := first.setdefault(canonical(chat), chat)) is not chat
    ]


def _warning(chat: Chat, name: str, found: str, accepted: str) -> Finding:
    return replace(Finding(chat.place, name, "", found, accepted), severity="warning")


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Raise one DataError that lists every finding that is an error, if there is one."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    lines = [str(finding) for finding in errors[:MAX_LISTED]]
    if len(errors) > MAX_LISTED:
        lines.append(f"and {len(errors) - MAX_LISTED} more")
    num_rows = len({finding.place for finding in errors})
    raise DataError(
        f"{len(errors)} {'problem' if len(errors) == 1 else 'problems'} in "
        f"{num_rows} {'row' if num_rows == 1 else 'rows'}",
        advice="correct or remove these rows; nothing has been started",
        details=lines,
    )
