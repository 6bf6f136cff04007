"""Models of texts that answer requests: vectors and labels, loaded when first asked for."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from luthier.errors import ConfigError
from luthier.evaluation import Prediction
from luthier.pipeline.asking import Answering, Numbers, Reader
from luthier.pipeline.engines import Source
from luthier.pipeline.opened_texts import open_reader
from luthier.pipeline.opening import find_run
from luthier.pipeline.placing import open_texts
from luthier.recipe import Runtime

MAX_READERS = 4


@dataclass(frozen=True)
class Texts:
    """A model of texts ready to be asked, by one request at a time."""

    reader: Reader
    answering: Answering | None
    """What a classifier's logits mean; None for a model of vectors."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ids(self, text: str) -> list[int]:
        """A text's tokens."""
        return list(self.reader.tokenizer.backend.encode(text).ids)

    def text(self, ids: Sequence[int]) -> str:
        """A text of tokens."""
        return self.reader.tokenizer.decode(list(ids))

    def embed(self, texts: Sequence[str], *, as_passages: bool) -> Numbers:
        """Vectors [n, D] float32 of texts, asked with, or to be found. Raises ConfigError."""
        if self.answering is not None:
            raise ConfigError("gives labels, not vectors", where="model")
        with self.lock:
            return self.reader.vectors(texts, prompt=self.reader.prompts[as_passages])

    def label(self, texts: Sequence[str]) -> list[Prediction]:
        """Labels with probabilities, or numbers. Raises ConfigError."""
        if self.answering is None:
            raise ConfigError("gives vectors, not labels", where="model")
        if self.answering.reads_pairs:
            raise ConfigError("reads two texts together, which is not served", where="model")
        asked = [(text, None) for text in texts]
        with self.lock:
            logits = self.reader.logits(asked)
        return self.answering.predictions([str(i) for i in range(len(texts))], logits)


class Readers:
    """The models of texts of a process; the one asked longest ago makes room for another."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._loaded: dict[Source, Texts] = {}
        self._lock = threading.Lock()

    def open(self, source: Source) -> Texts:
        """The model, loaded if it is not yet. Raises ModelError, ConfigError, StorageError."""
        with self._lock:
            found = self._loaded.pop(source, None) or self._load(source)
            while len(self._loaded) >= MAX_READERS:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[source] = found
            return found

    def _load(self, source: Source) -> Texts:
        if source.made is None:
            return Texts(open_texts(source.base, self._runtime), None)
        # A run lies in its workspace's folder of runs.
        tuned = open_reader(find_run(source.made.parent.parent, source.made.name))
        return Texts(tuned.reader, tuned.answering)
