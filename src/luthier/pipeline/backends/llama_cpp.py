"""llama.cpp, for models in GGUF, in a process of its own.

It reads adapters only when it starts: a new one starts another process over the same file, which
is mapped and not read again, and the earlier ends when its answers have. Prompts and answers are
token ids, so that only our own tokenizer and templates count.
Source: https://github.com/ggml-org/llama.cpp/tree/master/tools/server#api-endpoints
"""

import json
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, cast

from luthier.errors import ModelError, missing_package
from luthier.export import write_lora_gguf
from luthier.models import Asked, End, Piece
from luthier.pipeline.backends.elsewhere import Elsewhere, Stream
from luthier.pipeline.placing import resolve
from luthier.recipe import LoRA, Runtime
from luthier.runs import num_cores
from luthier.tokens import Tokenizer
from luthier.tokens.letters import TokenBytes

SERVER = Path(__file__).with_name("llama_cpp_server.py")
"""Started by its file, so that it need not import what it does not use."""


@dataclass
class _Process:
    """A server, with the adapters that it began with."""

    running: "subprocess.Popen[str]"
    url: str
    adapters: tuple[str, ...]
    num_answers: int = 0
    is_last: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def started(cls, settings: dict[str, Any], adapters: tuple[str, ...]) -> "_Process":
        """A new one, when it has loaded all. Raises ModelError where it has not."""
        running = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        process = cls(running, "", adapters)
        with suppress(BrokenPipeError):
            cast(TextIO, running.stdin).write(json.dumps(settings) + "\n")
            cast(TextIO, running.stdin).flush()
            process.url = cast(TextIO, running.stdout).readline().strip()
        if not process.url:
            process.end()
            raise ModelError("llama.cpp cannot load it", where=settings["model"])
        return process

    def end(self) -> None:
        """End it."""
        with suppress(BrokenPipeError):
            cast(TextIO, self.running.stdin).close()
        cast(TextIO, self.running.stdout).close()
        self.running.wait()

    def keep(self, change: int, *, is_last: bool | None = None) -> None:
        """Note that answers have begun or ended; one that nobody needs any more ends."""
        with self.lock:
            self.num_answers += change
            self.is_last = self.is_last if is_last is None else is_last
            is_needed = self.num_answers or self.is_last
        if not is_needed:
            threading.Thread(target=self.end, daemon=True).start()


@dataclass
class _Stream:
    """An answer as it comes."""

    url: str
    body: dict[str, Any]
    num_logprobs: int | None
    process: _Process
    token_bytes: TokenBytes
    num_told: int = 0

    def read(self, event: dict[str, Any]) -> Sequence[Piece | End]:
        """Tokens of an event, or the end."""
        if event["stop"]:
            cached = int((event.get("timings") or {}).get("cache_n") or 0)
            return [End("length" if event.get("stop_type") == "limit" else "stop", cached)]
        found: list[Piece | End] = []
        if (num_hidden := event["tokens_predicted"] - self.num_told - 1) > 0:
            found += self._hidden(event, num_hidden)
        self.num_told = event["tokens_predicted"]
        (token,) = event["tokens"]
        if self.num_logprobs is None:
            return [*found, Piece(token)]
        (weighed,) = event["completion_probabilities"]
        top = [(other["id"], other["logprob"]) for other in weighed["top_logprobs"]]
        return [*found, Piece(token, weighed["logprob"], tuple(top[: self.num_logprobs]))]

    def _hidden(self, event: dict[str, Any], count: int) -> list[Piece]:
        """Tokens that a letter began with: of several, llama.cpp tells the last one only.

        How likely they were is not told. They may be others with the same bytes. Those of a letter
        that is never completed are not told at all.
        """
        written = str(event["content"]).encode()
        last = self.token_bytes.of(event["tokens"][-1])
        ids = self.token_bytes.split(written.removesuffix(last), count)
        return [Piece(token) for token in ids]

    def end(self) -> None:
        """The process is needed by one less."""
        self.process.keep(-1)


class LlamaCpp(Elsewhere):
    """A base in llama.cpp."""

    def __init__(self, source: str, runtime: Runtime, *, slots: int, most: int) -> None:
        """Load a model; `most` bounds the tokens of a prompt and its answer.

        Raises ConfigError, ModelError.
        """
        if find_spec("xllamacpp") is None:
            raise missing_package("xllamacpp", "llama-cpp", where="--engine llama.cpp")
        folder = resolve(source, runtime, lambda note: None)
        if folder.gguf is None:
            raise ModelError(
                "is no GGUF file, which is all that llama.cpp reads", where=source,
                accepted="a .gguf file to start from, or --engine torch",
            )  # fmt: skip
        super().__init__()
        with ExitStack() as on_failure:
            on_failure.callback(super().close)
            self.tokenizer = Tokenizer.load(folder.path)
            self.context = min(most, self.tokenizer.context_length or most)
            self._bytes = TokenBytes(self.tokenizer)
            self._slots, self._model, self._key = slots, folder.gguf, secrets.token_hex(16)
            self._threads = num_cores() if runtime.threads == "auto" else runtime.threads
            self._made = tempfile.TemporaryDirectory(prefix="luthier-")
            on_failure.callback(self._made.cleanup)
            self._places: dict[str, str] = {}
            self._lock = threading.Lock()
            self._process = self._started()
            on_failure.pop_all()

    @property
    def headers(self) -> dict[str, str]:
        """With the key that only we know."""
        return {"authorization": f"Bearer {self._key}"}

    @property
    def vocabulary(self) -> int:
        """Tokens that may follow."""
        return self.tokenizer.vocabulary_size

    def has(self, adapter: str) -> bool:
        """Whether it may be asked."""
        return adapter in self._process.adapters

    def add(self, adapter: str, folder: Path) -> None:
        """Start anew with one more adapter. Raises ModelError where llama.cpp knows none such."""
        place = Path(self._made.name) / f"{adapter}.gguf"
        write_lora_gguf(folder, self._model, place)
        with self._lock:
            self._places[adapter] = str(place)
            earlier, self._process = self._process, self._started()
        earlier.keep(0, is_last=False)

    def add_trained(self, adapter: str, tuning: LoRA, file: Path) -> None:
        """Refuse: only finished adapters are converted. Raises ModelError."""
        raise ModelError(
            "is a checkpoint, which llama.cpp does not read", where=file.parent.name,
            accepted="the finished model, or checkpoints by --engine torch",
        )  # fmt: skip

    def forget(self, adapter: str) -> bool:
        """Forget an adapter, unless an answer is being written with it."""
        if self.asked[adapter]:
            return False
        with self._lock:
            if place := self._places.pop(adapter, None):
                Path(place).unlink()  # the process has read it, and is started without it next time
        return True

    def weigh(self, ids: Sequence[int], adapter: str, num_top: int) -> list[Piece]:
        """Refuse: llama.cpp tells nothing of a prompt's tokens. Raises ModelError."""
        raise ModelError(
            "llama.cpp does not say how likely the tokens of a prompt are",
            accepted="logprobs without echo, or --engine torch",
        )

    def stream(self, asked: Asked) -> Stream:
        """A completion of token ids, in events."""
        with self._lock:
            process = self._process
            process.keep(1)
        choosing, adapters = asked.choosing, process.adapters
        body = {
            "prompt": list(asked.ids),
            "n_predict": asked.max_new_tokens,
            "stream": True,
            "return_tokens": True,
            "cache_prompt": True,
            "n_probs": 0 if asked.num_logprobs is None else max(asked.num_logprobs, 1),
            "samplers": ["penalties", "temperature", "top_p"],
            "temperature": choosing.temperature,
            "top_p": choosing.top_p,
            "frequency_penalty": choosing.frequency_penalty,
            "presence_penalty": choosing.presence_penalty,
            "repeat_last_n": asked.max_new_tokens,
            "logit_bias": [[token, bias] for token, bias in choosing.logit_bias.items()],
            "seed": -1 if choosing.seed is None else choosing.seed % 2**32,
            "grammar": f"%llguidance {{}}\n{choosing.form}" if choosing.form else "",
            "lora": [
                {"id": number, "scale": float(name == asked.adapter)}
                for number, name in enumerate(adapters)
            ],
        }
        return _Stream(f"{process.url}/completion", body, asked.num_logprobs, process, self._bytes)

    def close(self) -> None:
        """End; requests under way are told that they are cancelled."""
        super().close()
        self._process.end()
        self._made.cleanup()

    def _started(self) -> _Process:
        settings = {
            "model": str(self._model), "context": self.context, "slots": self._slots,
            "threads": self._threads, "key": self._key, "adapters": list(self._places.values()),
        }  # fmt: skip
        return _Process.started(settings, tuple(self._places))
