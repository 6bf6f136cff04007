"""What computes answers: our own engine, llama.cpp, or vLLM, behind one interface."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from luthier.models import Answer, Asked, Piece, Told
from luthier.recipe import LoRA
from luthier.tokens import Tokenizer

Kind = Literal["torch", "llama.cpp", "vllm"]


class Backend(Protocol):
    """One base and its adapters, ready to be asked; `submit` may be called from any thread."""

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns text into ids."""
        ...

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        ...

    @property
    def vocabulary(self) -> int:
        """Tokens that may follow."""
        ...

    @property
    def num_waiting(self) -> int:
        """Requests that nothing is computed for yet."""
        ...

    def submit(self, asked: Asked, tell: Callable[[Told], None]) -> Answer:
        """Ask; what comes is told in another thread, which must not be held up."""
        ...

    def weigh(self, ids: Sequence[int], adapter: str, num_top: int) -> list[Piece]:
        """How likely each of these tokens but the first is after those before it."""
        ...

    def has(self, adapter: str) -> bool:
        """Whether it may be asked."""
        ...

    def add(self, adapter: str, folder: Path) -> None:
        """Read a saved adapter. Raises ModelError where it cannot be answered with."""
        ...

    def add_trained(self, adapter: str, tuning: LoRA, file: Path) -> None:
        """Read the weights of an adapter in training. Raises ModelError."""
        ...

    def forget(self, adapter: str) -> bool:
        """Forget an adapter, unless answers are written with it; whether it is forgotten."""
        ...

    def close(self) -> None:
        """End; requests under way are told that they are cancelled."""
        ...
