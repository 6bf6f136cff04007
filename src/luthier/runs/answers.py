"""What a model answered, kept by what it was asked: nothing is paid for twice.

One JSONL file a model. A line cut by a crash is asked again. Threads may share it.
"""

import hashlib
import json
from pathlib import Path
from threading import Lock
from typing import Any

from luthier.runs.files import JsonLines


class KeptAnswers:
    """Answers in a file, found by the hash of the question and its settings."""

    def __init__(self, path: Path) -> None:
        self._lines, self._lock = JsonLines(path), Lock()
        self._known: dict[str, Any] = {e["key"]: e["answer"] for e in self._lines.read()}

    def find(self, asked: Any) -> Any | None:
        """The answer to this; None when it was never asked."""
        return self._known.get(_key(asked))

    def keep(self, asked: Any, answer: Any) -> None:
        """Remember an answer, on disk when this returns."""
        with self._lock:
            self._known[_key(asked)] = answer
            self._lines.append({"key": _key(asked), "answer": answer})


def _key(asked: Any) -> str:
    text = json.dumps(asked, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
