"""How long texts are for a model: its tokenizer alone, no weights."""

from collections.abc import Callable, Sequence
from pathlib import Path

from luthier.models import default_cache, resolve_source
from luthier.recipe import Model
from luthier.tokens import Tokenizer


def open_measure(
    source: str, observe: Callable[[str], None] = lambda note: None, cache: Path | None = None
) -> tuple[Callable[[Sequence[str]], list[int]], int | None]:
    """What counts the tokens of texts, and how many the model takes.

    Raises ModelError, TemplateError.
    """
    folder = resolve_source(Model(source=source), cache or default_cache(), observe)
    tokenizer = Tokenizer.load(folder.path, writes=False)

    def measure(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
        return [len(one.ids) for one in encoded]

    return measure, tokenizer.context_length
