"""Our own engine."""

from collections.abc import Callable, Sequence
from pathlib import Path

from luthier.errors import ModelError
from luthier.models import (
    Allow,
    Answer,
    Asked,
    Engine,
    Forms,
    Piece,
    Told,
    load_model,
    load_trained,
)
from luthier.models.cache import bytes_per_token
from luthier.pipeline.needing import memory_for_runs
from luthier.pipeline.placing import place
from luthier.recipe import LoRA, Runtime
from luthier.tokens import Tokenizer

CACHE_SHARE = 4
"""What of the memory may be full of keys and values: one in so many."""


class Own:
    """A base in this process."""

    def __init__(
        self, source: str, runtime: Runtime, *, slots: int, most: int, weights: Path | None = None
    ) -> None:
        """Load a model; `most` bounds the tokens of a prompt and its answer.

        `weights` are a checkpoint's, in place of the model's own.

        Raises ConfigError, ModelError.
        """
        folder, device, dtype = place(source, runtime, lambda note: None)
        model = load_model(folder, dtype=dtype, device=device)
        if model.padded_because:
            raise ModelError(
                f"cannot be served: {model.padded_because}",
                where=source,
                advice="export it, and serve it by another program",
            )
        if weights is not None:
            load_trained(model.network, weights)
        self.tokenizer = Tokenizer.load(folder)
        self.context = min(most, self.tokenizer.context_length or most)
        # Memory for keys and values is taken as slots fill; all of them may be full one day.
        most_slots = memory_for_runs() // CACHE_SHARE // (bytes_per_token(model) * self.context)
        slots = max(1, min(slots, most_slots))
        self._forms: Forms | None = None
        self._engine = Engine(model, num_slots=slots, context=self.context, hold_to=self._hold_to)

    def _hold_to(self, form: str) -> Allow:
        if self._forms is None:
            self._forms = Forms(self.tokenizer, self.vocabulary)
        return self._forms.held_to(form)

    @property
    def vocabulary(self) -> int:
        """Tokens that may follow."""
        return self._engine.vocabulary

    @property
    def num_waiting(self) -> int:
        """Requests that have no slot yet."""
        return self._engine.num_waiting

    def submit(self, asked: Asked, tell: Callable[[Told], None]) -> Answer:
        """Ask; what comes is told in the engine's thread."""
        return self._engine.submit(asked, tell)

    def weigh(self, ids: Sequence[int], adapter: str, num_top: int) -> list[Piece]:
        """How likely each of these tokens but the first is after those before it."""
        return self._engine.weigh(ids, adapter, num_top)

    def has(self, adapter: str) -> bool:
        """Whether it may be asked."""
        return adapter in self._engine.adapters.names

    def add(self, adapter: str, folder: Path) -> None:
        """Read a saved adapter. Raises ModelError."""
        self._engine.do(lambda: self._engine.adapters.add(adapter, folder))

    def add_trained(self, adapter: str, tuning: LoRA, file: Path) -> None:
        """Read the weights of an adapter in training. Raises ModelError."""
        self._engine.do(lambda: self._engine.adapters.add_trained(adapter, tuning, file))

    def forget(self, adapter: str) -> bool:
        """Forget an adapter, unless an answer is being written with it."""
        return self._engine.forget(adapter)

    def close(self) -> None:
        """End; requests under way are told that they are cancelled."""
        self._engine.close()
