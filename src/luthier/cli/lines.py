"""The log of services: lines of JSON."""

import json
import logging
from typing import Any


class JsonLines(logging.Formatter):
    """A log record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Such as {"time": ..., "level": "info", "message": "request", "status": 200}."""
        told: dict[str, Any] = {
            "time": round(record.created, 3), "level": record.levelname.lower(),
            "logger": record.name, "message": record.getMessage(),
            **getattr(record, "told", {}),
        }  # fmt: skip
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def log_lines() -> None:
    """From now on, what Luthier logs goes to stderr as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger("luthier")
    root.handlers, root.propagate = [handler], False
    root.setLevel(logging.INFO)
