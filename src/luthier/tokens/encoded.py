"""The typed values of the tokens room: examples as ids with a loss mask.

One type a kind of example; all say which sequences a model sees and how many tokens carry loss.
"""

from dataclasses import dataclass

IGNORED = -100
"""Label of a token that carries no loss, as in torch's cross-entropy."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sequence of ids; labels[t] is ids[t] where token t is learnt and IGNORED elsewhere."""

    example_id: str
    input_ids: list[int]
    labels: list[int]
    spans: tuple[tuple[int, int], ...]
    """Supervised token ranges [start, end), one per trained turn."""

    @property
    def num_supervised(self) -> int:
        """Tokens that carry loss."""
        return sum(end - start for start, end in self.spans)

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequence."""
        return len(self.input_ids)

    @property
    def sequences(self) -> tuple["Encoded", ...]:
        """The sequences a model sees: this one."""
        return (self,)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A preference as two sequences that begin with the same prompt."""

    chosen: Encoded
    rejected: Encoded
    reference: tuple[float, float] | None = None
    """Log-likelihood of the two answers under the model at the start, where it is needed."""

    @property
    def example_id(self) -> str:
        """Id of the example both come from."""
        return self.chosen.example_id

    @property
    def num_supervised(self) -> int:
        """Tokens of both answers."""
        return self.chosen.num_supervised + self.rejected.num_supervised

    @property
    def num_tokens(self) -> int:
        """Tokens computed: the prompt once, and both answers."""
        return self.chosen.num_tokens + self.rejected.num_supervised

    @property
    def sequences(self) -> tuple[Encoded, ...]:
        """The sequences a model sees."""
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class EncodedRated:
    """A rated answer, and the same prompt with another example's answer, for KTO's baseline."""

    answer: Encoded
    mismatched: Encoded
    is_good: bool
    reference: tuple[float, float] | None = None
    """Log-likelihood of both answers under the model at the start."""

    @property
    def example_id(self) -> str:
        """Id of the example."""
        return self.answer.example_id

    @property
    def num_supervised(self) -> int:
        """Tokens of the rated answer."""
        return self.answer.num_supervised

    @property
    def num_tokens(self) -> int:
        """Tokens of the rated sequence."""
        return self.answer.num_tokens

    @property
    def sequences(self) -> tuple[Encoded, ...]:
        """The sequences a model sees."""
        return self.answer, self.mismatched


EncodedExample = Encoded | EncodedPair | EncodedRated
