"""Programs that a model wrote are run where they can do no harm.

Each runs in a process of its own, shut in as `sandbox_child` says, with bounded time, memory,
output and files. It reaches no network and no other process, and can change no file; it can read
what its user can read, and tell it to nobody but us. A program that was written to fool this very
file can claim to have finished, but no other. Where the system cannot shut programs in (no Linux,
no user namespaces), nothing is run at all.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from luthier.errors import ConfigError

CHILD = Path(__file__).with_name("sandbox_child.py")
START = 5.0
"""Seconds that a new interpreter and its namespaces may take on a busy machine."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    seconds: float = 10.0
    memory: int = 1 << 30
    """Bytes of address space, its interpreter's own among them."""
    num_bytes: int = 16 << 20
    """Of its files."""
    output: int = 1 << 16
    """Bytes of what it prints that are kept; more ends it."""


Ending = Literal["finished", "failed", "out of time", "printed too much", "killed"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a program."""

    ending: Ending
    value: Any = None
    """What the called function gave."""
    error: str = ""
    printed: str = ""


@dataclass
class _Heard:
    """What a process says on its streams, up to a limit on each."""

    most: int
    texts: dict[str, bytearray] = field(default_factory=dict)

    def listen(self, streams: dict[str, IO[bytes]], until: float) -> Ending | None:
        """Read until all streams end; otherwise why not."""
        with selectors.DefaultSelector() as ready:
            for name, stream in streams.items():
                self.texts[name] = bytearray()
                ready.register(stream, selectors.EVENT_READ, name)
            while ready.get_map():
                left = until - time.monotonic()
                if left <= 0:
                    return "out of time"
                ended = [key for key, _ in ready.select(left) if not self._take(key)]
                for key in ended:
                    ready.unregister(key.fileobj)
                if any(len(text) > self.most for text in self.texts.values()):
                    return "printed too much"
        return None

    def _take(self, key: selectors.SelectorKey) -> int:
        """How many bytes there were; 0 at the end of a stream."""
        block = os.read(key.fd, 1 << 14)
        self.texts[key.data] += block
        return len(block)


def run_program(
    source: str,
    call: str | None = None,
    arguments: tuple[Any, ...] = (),
    limits: Limits = Limits(),
) -> Ran:
    """Run a Python program shut in, and call one of its functions with values that JSON can say.

    Raises ConfigError where programs cannot be shut in.
    """
    why = cannot_shut_in()
    if why:
        raise ConfigError(
            f"programs cannot be shut in here: {why}", where="sandbox",
            accepted="Linux with user namespaces", advice="run it there, or leave the scorer out",
        )  # fmt: skip
    return _run(source, call, arguments, limits)


@cache
def cannot_shut_in() -> str:
    """Why the system cannot shut programs in; nothing where it can."""
    if sys.platform != "linux":
        return f"the system is {sys.platform}"
    ran = _run("import os, socket", None, (), Limits())
    return "" if ran.ending == "finished" else ran.error or ran.ending


def _run(source: str, call: str | None, arguments: tuple[Any, ...], limits: Limits) -> Ran:
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="luthier-sandbox-") as folder:
        asked = {
            "source": source, "call": call, "arguments": arguments, "folder": folder,
            "token": token, "seconds": max(1, round(limits.seconds)), "memory": limits.memory,
            "num_bytes": limits.num_bytes,
        }  # fmt: skip
        with tempfile.TemporaryFile() as given:
            given.write(json.dumps(asked).encode())
            given.seek(0)
            return _follow(given, token, limits)


def _follow(given: IO[bytes], token: str, limits: Limits) -> Ran:
    reading, writing = os.pipe()
    with subprocess.Popen(  # noqa: S603 - nothing of a program is in the command
        [sys.executable, "-I", "-S", str(CHILD), str(writing)], stdin=given,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={}, pass_fds=(writing,),
        start_new_session=True, close_fds=True,
    ) as process, os.fdopen(reading, "rb") as result:  # fmt: skip
        os.close(writing)
        assert process.stdout is not None, "it was asked for"
        heard = _Heard(limits.output)
        streams: dict[str, IO[bytes]] = {"printed": process.stdout, "result": result}
        try:
            ending = heard.listen(streams, time.monotonic() + limits.seconds + START)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        printed = heard.texts["printed"][: limits.output].decode("utf-8", "replace")
        if ending is not None:
            return Ran(ending, printed=printed)
        return _judged(bytes(heard.texts["result"]), token, printed)


def _judged(result: bytes, token: str, printed: str) -> Ran:
    """What the child says; a program that ended it before, or speaks for it, has not finished."""
    try:
        said = json.loads(result)
    except ValueError:
        return Ran("killed", error="it ended before it was done", printed=printed)
    if not isinstance(said, dict) or "refused" in said:
        return Ran("failed", error=str(said), printed=printed)
    if said.get("token") != token:
        return Ran("failed", error="it answered for the sandbox", printed=printed)
    error = str(said.get("error", ""))
    return Ran("failed" if error else "finished", said.get("value"), error, printed)
