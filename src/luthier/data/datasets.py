"""Files become a dataset, with a list of everything that is wrong with them.

No row is dropped in silence: a row that cannot be used is a finding, and findings that are errors
refuse the whole (`refuse_errors`) until the caller has shown them.
"""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from luthier.data.examples import Dataset, Example, Finding, Pair, Row, Split, canonical
from luthier.data.formats import RowReader
from luthier.data.labels import label_findings
from luthier.data.reading import Report, hash_bytes, read_rows
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


class Source(Protocol):
    """Where the rows of a path come from."""

    def rows(self, path: Path, split: Split, report: Report) -> Iterator[Row]:
        """Rows for a split, in order; what is wrong with single ones goes to `report`."""
        ...

    def splits(self, path: Path) -> Container[str]:
        """Splits that its rows are parted into already."""
        ...

    def sha256(self, path: Path) -> str:
        """Of its content."""
        ...


class Files:
    """Rows of files."""

    def rows(self, path: Path, split: Split, report: Report) -> Iterator[Row]:
        """All rows of the file."""
        return read_rows(path, report)

    def splits(self, path: Path) -> Container[str]:
        """A file knows no splits."""
        return ()

    def sha256(self, path: Path) -> str:
        """Of the file's bytes."""
        return hash_bytes(path)


FILES = Files()


def read_dataset(data: Data, source: Source = FILES) -> Reading:
    """Read all files of a recipe. Raises DataError for a file that cannot be rows at all."""
    files: dict[Split, Path] = {"train": data.train}
    parted = source.splits(data.train)
    held_out: dict[Split, Path | None] = {"validation": data.validation, "test": data.test}
    for split, named in held_out.items():
        if named is not None or split in parted:
            files[split] = named or data.train
    read = {split: _read_file(source, path, split, data.format) for split, path in files.items()}
    _check_one_kind({files[split]: file.examples for split, file in read.items()})
    findings = [finding for file in read.values() for finding in file.findings]
    findings += _duplicate_ids([example for file in read.values() for example in file.examples])
    splits = split_by_hash(
        read["train"].examples,
        0.0 if "validation" in files else data.validation_share,
        0.0 if "test" in files else data.test_share,
    )
    for split in ("validation", "test"):
        if split in read:
            splits[split] = list(read[split].examples)
            findings += _leaks(splits["train"], splits[split])
    findings += _repeats(splits["train"])
    findings += [found for split in ("train", "test") for found in _constant_scores(splits[split])]
    findings += label_findings(splits["train"], splits["validation"], splits["test"])
    dataset = Dataset(
        tuple(limit_by_hash(splits["train"], data.limit)),
        tuple(splits["validation"]),
        tuple(splits["test"]),
        {str(path): source.sha256(path) for path in files.values()},
    )
    num_rows = Counter[str]()
    for split, file in read.items():
        num_rows[str(files[split])] += file.num_rows
    return Reading(
        dataset,
        tuple(findings),
        dict(num_rows),
        {str(files[split]): file.format for split, file in read.items()},
    )


def with_test(reading: Reading, path: Path, wanted: str, source: Source = FILES) -> Reading:
    """The same training and validation rows, and the rows of another file to be judged on."""
    read, known = _read_file(source, path, "test", wanted), reading.dataset
    _check_one_kind({Path(next(iter(known.files))): known.train, path: read.examples})
    findings = [*read.findings, *_duplicate_ids(read.examples), *_leaks(known.train, read.examples)]
    return replace(
        reading,
        dataset=replace(
            known, test=read.examples, files={**known.files, str(path): source.sha256(path)}
        ),
        findings=(*reading.findings, *findings),
    )


def _check_one_kind(files: dict[Path, tuple[Example, ...]]) -> None:
    """Raise DataError when one file holds chats and another preferences, say."""
    kinds = {path: type(examples[0]) for path, examples in files.items() if examples}
    if len(set(kinds.values())) > 1:
        raise DataError(
            "the files hold different kinds of examples",
            accepted="one kind in all files",
            details=[f"{path}: {kind.__name__.lower()} rows" for path, kind in kinds.items()],
        )


@dataclass(frozen=True, slots=True)
class _FileRead:
    examples: tuple[Example, ...]
    findings: tuple[Finding, ...]
    num_rows: int
    format: str


def _read_file(source: Source, path: Path, split: Split, wanted: str) -> _FileRead:
    findings: list[Finding] = []
    reader = RowReader(findings.append, wanted)
    found = [reader.example(row) for row in source.rows(path, split, findings.append)]
    if not reader.num_rows and not findings:
        raise DataError("holds no row", where=str(path), accepted="one row a line")
    examples = tuple(example for example in found if example is not None)
    layout = reader.layout.name if reader.layout else ""
    return _FileRead(examples, tuple(findings), reader.num_rows, layout)


def _duplicate_ids(examples: Sequence[Example]) -> list[Finding]:
    first: dict[str, Example] = {}
    findings = []
    for example in examples:
        earlier = first.setdefault(example.id, example)
        if earlier is not example:
            found = f"is {example.id!r}, as in {earlier.place}"
            findings.append(
                Finding(example.place, "duplicate-id", "id", found, "a distinct id for every row")
            )
    return findings


def _leaks(train: Sequence[Example], held_out: Sequence[Example]) -> list[Finding]:
    known = {prompt_key(example): example for example in reversed(train)}
    return [
        _warning(example, "leaked-prompt", f"asks the same as {known[key].place}",
                 "held-out prompts that are not in the training rows")
        for example in held_out
        if (key := prompt_key(example)) in known
    ]  # fmt: skip


def _constant_scores(examples: Sequence[Example]) -> list[Finding]:
    """Scores that say nothing: there is no order to learn, nor to be judged by."""
    scored = [
        example for example in examples if isinstance(example, Pair) and example.score is not None
    ]
    if len(scored) < 2 or len({example.score for example in scored}) > 1:
        return []
    found = f"is {scored[0].score}, as in all {len(scored)} rows of its split"
    return [Finding(scored[0].place, "constant-score", "score", found, "scores that differ")]


def _repeats(train: Sequence[Example]) -> list[Finding]:
    first: dict[str, Example] = {}
    return [
        _warning(example, "repeated-row", f"says the same as {earlier.place}", "distinct rows")
        for example in train
        if (earlier := first.setdefault(canonical(example), example)) is not example
    ]


def _warning(example: Example, name: str, found: str, accepted: str) -> Finding:
    return replace(Finding(example.place, name, "", found, accepted), severity="warning")


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
