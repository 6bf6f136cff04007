"""Models that answer requests: loaded when first asked for, with adapters over one base.

Models that started from the same base share its weights and its batches. Only so many bases are
kept; the one that was asked longest ago makes room for another.
"""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from luthier.errors import ConfigError, JobError, LuthierError
from luthier.models import (
    Answer,
    Asked,
    Choosing,
    End,
    Piece,
    Told,
)
from luthier.pipeline.backends import Backend, Kind
from luthier.pipeline.recorded import recipe_in
from luthier.recipe import LoRA, Runtime
from luthier.tokens import CallForm, Tokenizer, call_form

__all__ = [
    "Answer",
    "Engines",
    "Choosing",
    "End",
    "Opened",
    "Piece",
    "Source",
    "TextReader",
    "Told",
]

SLOTS = 32
"""Answers written at once at most, where memory is enough."""
CONTEXT = 4096
MAX_ADAPTERS = 64
"""Over one base; the one that was asked longest ago makes room for another."""
PATIENCE = 20.0
"""Seconds that a request waits for a model to be loaded."""


class LoadingError(LuthierError, TimeoutError):
    """A model is being loaded, and not there yet."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model that answers comes from."""

    base: str
    """As a recipe says it."""
    made: Path | None = None
    """What a run made of it: the run's folder, or that of a checkpoint within."""


_Weights = tuple[str, Path | None]
"""A base, and the checkpoint's weights that it has in place of its own."""


class Loaded:
    """A base in memory."""

    def __init__(self, engine: Backend) -> None:
        self.engine = engine
        self._adapters: dict[str, None] = {}
        """The last one asked stands last."""

    def keep(self, adapter: str, most: int) -> None:
        """Note that an adapter is asked for; of more than so many one is forgotten."""
        self._adapters.pop(adapter, None)
        self._adapters[adapter] = None
        if len(self._adapters) > most:
            oldest = next(iter(self._adapters))
            del self._adapters[oldest]
            if not self.engine.forget(oldest):  # it writes just now, so it is asked for
                self._adapters[oldest] = None

    @cached_property
    def call_form(self) -> CallForm:
        """How it writes calls of tools."""
        return call_form(self.engine.tokenizer)


@dataclass(frozen=True, slots=True)
class Opened:
    """A model ready to be asked."""

    loaded: Loaded
    adapter: str
    """Its name in the engine; empty where there is none."""

    @property
    def engine(self) -> Backend:
        """What computes."""
        return self.loaded.engine

    @property
    def call_form(self) -> CallForm:
        """How it writes calls of tools."""
        return self.loaded.call_form

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns text into ids."""
        return self.loaded.engine.tokenizer

    def ask(
        self,
        ids: Sequence[int],
        tell: Callable[[Told], None],
        *,
        max_new_tokens: int,
        choosing: Choosing,
        num_logprobs: int | None = None,
    ) -> Answer:
        """Ask what follows; it is told in the engine's thread, which must not be held up.

        Raises ModelError where the engine cannot answer so.
        """
        stop_ids = frozenset(self.tokenizer.stop_ids)
        asked = Asked(ids, max_new_tokens, stop_ids, self.adapter, choosing, num_logprobs)
        return self.engine.submit(asked, tell)


class Engines:
    """The engines of a process."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        max_bases: int = 2,
        max_adapters: int = MAX_ADAPTERS,
        slots: int = SLOTS,
        kind: Kind = "torch",
        url: str = "",
    ) -> None:
        """`url`: where vLLM is, for engines of this kind. Raises ConfigError."""
        if (kind == "vllm") != bool(url):
            raise ConfigError(
                "says where vLLM is" if url else "needs to know where vLLM is", where="--vllm",
                accepted="--engine vllm together with --vllm http://HOST:PORT",
            )  # fmt: skip
        self._runtime, self._slots, self._kind, self._url = runtime, slots, kind, url
        self._max_bases, self._max_adapters = max_bases, max_adapters
        self._bases: dict[_Weights, Future[Loaded]] = {}
        """The last one asked stands last."""
        self._numbers = itertools.count()
        self._adapters: dict[Path, str] = {}
        self._lock, self._adding = threading.Lock(), threading.Lock()

    def open(self, source: Source) -> Opened:
        """The model, loaded if it is not yet.

        Raises LoadingError where that takes long; ModelError, ConfigError, StorageError.
        """
        whole = source.made / "model" if source.made else None
        if whole is not None and whole.is_dir():
            return Opened(self._base(str(whole)), "")
        if (weights := _whole_weights(source.made)) is not None:
            return Opened(self._base(source.base, weights), "")
        loaded = self._base(source.base)
        return Opened(loaded, self._adapter(loaded, source.made) if source.made else "")

    def close(self) -> None:
        """End all engines."""
        with self._lock:
            while self._bases:
                self._put_away(next(iter(self._bases)))

    def _base(self, base: str, weights: Path | None = None) -> Loaded:
        source = (base, weights)
        with self._lock:
            loading = self._bases.pop(source, None)
            if loading is None or (loading.done() and loading.exception()):
                while len(self._bases) >= self._max_bases:
                    self._put_away(next(iter(self._bases)))
                loading = Future()
                threading.Thread(target=self._load, args=(source, loading), daemon=True).start()
            self._bases[source] = loading
        try:
            return loading.result(PATIENCE)
        except TimeoutError:
            raise LoadingError("is being loaded", where=base) from None

    def _put_away(self, source: _Weights) -> None:
        """End a base's engine, now or as soon as it is there."""
        self._bases.pop(source).add_done_callback(_close)

    def _load(self, source: _Weights, loading: "Future[Loaded]") -> None:
        try:
            engine = self._loaded(*source)
        except Exception as error:  # whoever waits is told, whatever it is
            loading.set_exception(error)
        else:
            loading.set_result(Loaded(engine))

    def _loaded(self, source: str, weights: Path | None) -> Backend:
        if self._kind != "torch" and weights is not None:
            raise JobError(
                "is a checkpoint", where=weights.parent.name,
                accepted="the finished model, or checkpoints by --engine torch",
            )  # fmt: skip
        if self._kind == "vllm":
            from luthier.pipeline.backends.vllm import Vllm

            return Vllm(source, self._runtime, self._url, most=CONTEXT)
        if self._kind == "llama.cpp":
            from luthier.pipeline.backends.llama_cpp import LlamaCpp

            return LlamaCpp(source, self._runtime, slots=self._slots, most=CONTEXT)
        from luthier.pipeline.backends.own import Own

        return Own(source, self._runtime, slots=self._slots, most=CONTEXT, weights=weights)

    def _adapter(self, loaded: Loaded, made: Path) -> str:
        with self._adding:
            name = self._added(loaded.engine, made)
            loaded.keep(name, self._max_adapters)
            return name

    def _added(self, engine: Backend, made: Path) -> str:
        name = self._adapters.setdefault(made, f"adapter-{next(self._numbers)}")
        if engine.has(name):
            return name
        if (made / "adapter").is_dir():
            engine.add(name, made / "adapter")
            return name
        weights = made / "trained.safetensors"
        if not weights.is_file():
            raise JobError("its weights are no longer kept", where=made.name)
        tuning = recipe_in(made.parent.parent).tuning
        assert isinstance(tuning, LoRA), "others are bases of their own"
        engine.add_trained(name, tuning, weights)
        return name


def _whole_weights(made: Path | None) -> Path | None:
    """The weights of a checkpoint whose tuning changes the base's own."""
    weights = made / "trained.safetensors" if made else None
    if made is None or weights is None or not weights.is_file():
        return None
    return None if isinstance(recipe_in(made.parent.parent).tuning, LoRA) else weights


def _close(loading: "Future[Loaded]") -> None:
    if loading.exception() is None:
        loading.result().engine.close()


class TextReader:
    """Tokens become text that can be shown: whole letters, up to the first stop sequence."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._shown = self._read = 0
        self._held = ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """The text that is certain with one more token."""
        self._ids.append(token)
        # Text is decoded behind some tokens that are shown already: how a token is written
        # depends on those before it.
        before = self._tokenizer.decode(self._ids[self._shown : self._read])
        text = self._tokenizer.decode(self._ids[self._shown :])
        if text.endswith("\ufffd"):
            return ""  # a letter of several tokens is not complete
        self._shown, self._read = self._read, len(self._ids)
        self._held += text[len(before) :]
        return self._release(is_last=False)

    def end(self) -> str:
        """What was held back, as no more tokens come."""
        if not self.is_stopped:
            before = self._tokenizer.decode(self._ids[self._shown : self._read])
            self._held += self._tokenizer.decode(self._ids[self._shown :])[len(before) :]
        return self._release(is_last=True)

    def _release(self, *, is_last: bool) -> str:
        if self.is_stopped:
            return ""
        ends = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if ends:
            self.is_stopped = True
            return self._held[: min(ends)]
        keep = 0 if is_last else max(map(self._overlap, self._stops), default=0)
        cut = len(self._held) - keep
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _overlap(self, stop: str) -> int:
        """Letters at the end of the text that may be the beginning of a stop sequence."""
        sizes = range(min(len(stop) - 1, len(self._held)), 0, -1)
        return next((size for size in sizes if self._held.endswith(stop[:size])), 0)
