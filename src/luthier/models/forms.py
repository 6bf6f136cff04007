"""Which tokens may follow an answer that is held to a form (`luthier.tokens.forms`)."""

from collections.abc import Sequence

import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from luthier.errors import ModelError
from luthier.models.engine import Allow
from luthier.tokens import Tokenizer


class Forms:
    """The forms that one tokenizer's tokens can be held to."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        """`vocabulary`: width of the model's logits."""
        self._tokenizer = LLTokenizer(
            tokenizer.backend.to_str(), n_vocab=vocabulary, eos_token=sorted(tokenizer.stop_ids)
        )

    def held_to(self, form: str) -> Allow:
        """Which tokens [V] may follow; to be asked for one answer only.

        Raises ModelError where the form cannot be written by this tokenizer.
        """
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(form), log_level=0)
        if matcher.is_error():
            raise ModelError(f"cannot be held to a form: {matcher.get_error().splitlines()[0]}")
        known = 0

        def allow(ids: Sequence[int]) -> Tensor:
            nonlocal known
            matcher.consume_tokens(list(ids[known:]))
            known = len(ids)
            bits = torch.frombuffer(bytearray(matcher.compute_bitmask()), dtype=torch.uint8)
            return (bits[:, None] >> torch.arange(8)).bitwise_and_(1).flatten().bool()

        return allow
