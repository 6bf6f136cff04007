"""A server that speaks as much of OpenAI's protocol as the tests need, over real HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Server:
    """What it was asked, and what it answers: a text, a whole body, or a status without one."""

    answer: Callable[[Body], str | Body | int | bytes]
    url: str = ""
    asked: list[Body] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def completion(asked: Body, text: str, reason: str = "stop") -> Body:
    """A chat completion that says the text."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 9},
    }  # fmt: skip


@contextmanager
def serving(answer: Callable[[Body], str | Body | int | bytes]) -> Iterator[Server]:
    """A server on this machine that answers so."""
    known = Server(answer)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            known.asked.append(asked)
            known.keys.append(self.headers.get("authorization", ""))
            said = known.answer(asked)
            status = said if isinstance(said, int) else 200
            if isinstance(said, int):
                said = {"error": {"message": f"it is {status}"}}
            elif isinstance(said, str):
                said = completion(asked, said)
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("retry-after-ms", "1")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        known.url = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            yield known
        finally:
            server.shutdown()
