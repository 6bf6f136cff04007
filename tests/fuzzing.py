"""Bytes that nobody thought of, by coverage (atheris): rows are read, or it is said what is wrong.

    pip install -e '.[fuzz]' && python tests/fuzzing.py -max_total_time=600 [CORPUS]

The first byte chooses what the others are: a file of one of the kinds, or lines for the quick
check, whose answer must be the slow one's. Anything but a LuthierError is a bug.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["luthier.data", "luthier.curation"]):
    from luthier.curation.formats import check_format
    from luthier.curation.looking import FileSource, seen
    from luthier.data import Finding, RowReader, read_rows
    from luthier.errors import LuthierError

SUFFIXES = (".jsonl", ".json", ".csv", ".jsonl.gz", ".jsonl.zst", ".parquet", ".arrow", ".xlsx")
FOLDER = Path(tempfile.mkdtemp(prefix="luthier-fuzz-"))


def one_input(data: bytes) -> None:
    """Read what the bytes are."""
    kind = data[0] % (len(SUFFIXES) + 1) if data else 0
    place = FOLDER / f"rows{SUFFIXES[kind] if kind < len(SUFFIXES) else '.jsonl'}"
    place.write_bytes(data[1:])
    if kind == len(SUFFIXES):
        assert outcome(place, quickly=True) == outcome(place, quickly=False)
        return
    try:
        for block in seen(FileSource({None: [place]}), lambda finding: None):
            for row in block:
                list(row.all_texts)
    except LuthierError:
        return


def outcome(place: Path, *, quickly: bool) -> object:
    """How many rows there are, and on which lines something is wrong."""
    findings: list[Finding] = []
    try:
        if quickly:
            number = check_format(place, findings.append)
        else:
            reader = RowReader(findings.append)
            for row in read_rows(place, findings.append):
                reader.example(row)
            number = reader.num_rows
    except LuthierError as error:
        return str(error)
    return number, sorted((f.place.line, f.name, f.field, f.found) for f in findings)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
