"""The checks that OpenAI's cookbook describes for chats, written as it describes them.

"Data preparation and analysis for chat model fine-tuning" asks of each line: that it is an object,
that it has messages, that each message has a role and a content or a call, no unknown keys, a known
role, a content that is a text, and that an answer of the assistant is there.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import peak_bytes

KEYS = {"role", "content", "name", "function_call", "tool_calls", "tool_call_id", "weight"}
ROLES = {"system", "user", "assistant", "function", "tool", "developer"}


def main() -> None:
    """Check every line, and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text())
    wrong, number = [], 0
    started = time.perf_counter()
    with Path(job["file"]).open(encoding="utf-8") as lines:
        for place, line in enumerate(lines, 1):
            try:
                is_right = not is_wrong(json.loads(line))
            except ValueError:
                is_right = False
            number += is_right
            if not is_right:
                wrong.append(place)
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, "rows": number, "wrong": wrong, "peak_bytes": peak_bytes()}
    print("\n" + json.dumps(found))


def is_wrong(row: Any) -> bool:
    """Whether a line breaks one of the rules."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not messages:
        return True
    for message in messages:
        content = message.get("content")
        calls = message.get("function_call") or message.get("tool_calls")
        if "role" not in message or ("content" not in message and not calls):
            return True
        if any(key not in KEYS for key in message) or message["role"] not in ROLES:
            return True
        if (not content and not calls) or (content is not None and not isinstance(content, str)):
            return True
    return not any(message["role"] == "assistant" for message in messages)


if __name__ == "__main__":
    main()
