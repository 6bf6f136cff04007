"""Votes of people, kept beside the answers that they are about: one JSONL file a trial or run."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from luthier.review import Vote, read_vote
from luthier.runs.files import JsonLines

VOTES = "votes.jsonl"


class Votes:
    """The votes in a folder; each is on disk when `add` returns."""

    def __init__(self, folder: Path) -> None:
        self.place = folder / VOTES
        self._lines = JsonLines(self.place)

    def add(self, vote: Vote) -> None:
        """Keep a vote. Raises StorageError."""
        self._lines.append(asdict(vote))

    def __iter__(self) -> Iterator[Vote]:
        """All votes, the oldest first. Raises DataError, StorageError."""
        for number, content in enumerate(self._lines.read(), 1):
            yield read_vote(content, f"{self.place}:{number}")
