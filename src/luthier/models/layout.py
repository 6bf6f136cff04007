"""Who sees whom in a flat batch, and how its attention is cut into products of matrices.

A flat batch is a forest of segments on one token axis. A segment sees the segments it continues
(its chain of parents) and, causally, itself; so sequences that begin alike share one copy of the
beginning. For attention, segments are cut into short stretches of rows, so that keys that lie ahead
are mostly left out; stretches with as many keys before them form one block, computed as
one batched product. Members of a block that are shorter than others are padded there, and only
there.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, cast

import torch
from torch import Tensor

TILE = 256
"""Rows of a product at most: query rows of a segment computed at once x heads that share a key.

Of a tile's own keys half lie ahead, for nothing; fewer rows make slower products.
"""

ROUND_TO = 32
"""Keys of a block are a multiple of this, and stretches whose rows round up alike share a block."""

SCORES = 2**20
"""Scores of a block over all heads, so that they stay in the cache; one tile at least."""

T = TypeVar("T")


class Scoring(NamedTuple):
    """How queries and keys become scores."""

    scale: float
    window: int | None = None
    """Keys a query sees, its own included; None: all before it."""
    cap: float | None = None
    """Scores are cap x tanh(score / cap) (Gemma 2)."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows [start, end) of a segment, and the ranges of keys before them that they all see."""

    start: int
    end: int
    before: tuple[tuple[int, int], ...]

    @property
    def num_before(self) -> int:
        """Keys that stand before the first row."""
        return sum(end - start for start, end in self.before)


@dataclass(frozen=True)
class Block:
    """B stretches of at most L rows, each with F keys before its first row; S keys in all.

    What pads a shorter stretch repeats its last row and key: repeated keys are ahead of all rows
    but repeated ones, and what repeated rows give is dropped.
    """

    rows: Tensor
    """[B, L] int64: the tokens that ask."""
    places: Tensor
    """[B, L] int64: where their results go; those of repeated rows to the place after the last."""
    padding: Tensor
    """[N] int64: which of the B x L rows are repeats."""
    keys: Tensor
    """[B, S] int64: the tokens seen."""
    num_before: int
    """F: row i is key F + i."""
    masks: dict[tuple[torch.dtype, int, int | None], Tensor] = field(default_factory=dict)

    def keys_within(self, window: int | None) -> Tensor:
        """[B, S']: the keys less those that no row sees through a window."""
        return self.keys[:, self._num_skipped(window) :]

    def mask(self, dtype: torch.dtype, groups: int, window: int | None) -> Tensor:
        """[L * groups, M] of 0, and -inf where a row does not see a key of `keys_within`.

        Of the last M keys; those before are seen by all rows. A row sees the last `window` keys up
        to its own; None: all up to its own.
        """
        if (dtype, groups, window) not in self.masks:
            start = self.num_before if window is None else self._num_skipped(window)
            rows = self.num_before + torch.arange(self.rows.shape[1])[:, None]
            keys = torch.arange(start, self.keys.shape[1])
            unseen = keys > rows
            if window is not None:
                unseen |= keys <= rows - window
            mask = torch.zeros(unseen.shape, dtype=dtype).masked_fill_(unseen, -torch.inf)
            mask = mask.repeat_interleave(groups, dim=0).to(self.rows.device)
            self.masks[dtype, groups, window] = mask
        return self.masks[dtype, groups, window]

    def _num_skipped(self, window: int | None) -> int:
        return 0 if window is None else max(0, self.num_before - window + 1)


@dataclass(frozen=True)
class FlatLayout:
    """Where the segments of a flat batch lie."""

    lengths: tuple[int, ...]
    parents: tuple[int, ...]
    """The segment each continues, or -1."""
    num_known: int = 0
    """Segments that only have keys: queries count from the first token after them."""
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)

    is_causal: ClassVar[bool] = True
    """Whether tokens see only what stands before them."""

    @classmethod
    def of(cls, lengths: Sequence[int], parents: Sequence[int] | None = None) -> Self:
        """Layout of segments of these lengths; parents[i] is the segment i continues, or -1.

        A parent stands before its children. Empty segments are allowed.
        """
        parents = (-1,) * len(lengths) if parents is None else tuple(parents)
        assert all(-1 <= parent < i for i, parent in enumerate(parents)), "parents stand before"
        return cls(tuple(lengths), parents)

    @classmethod
    def after(cls, prefix: int, lengths: Sequence[int]) -> "FlatLayout":
        """Layout of sequences whose first `prefix` keys are already there, ahead of the queries.

        Query rows count from the first new token, keys from the prefix's first.
        """
        return cls((prefix, *lengths), (-1, *(0 for _ in lengths)), num_known=1)

    @property
    def num_rows(self) -> int:
        """Tokens that ask."""
        return sum(self.lengths[self.num_known :])

    def blocks(
        self, num_heads: int, groups: int, device: torch.device, *, is_fused: bool = False
    ) -> tuple[Block, ...]:
        """All rows in blocks, for key-value heads of so many query heads; made once, and kept.

        With `is_fused`, some are what a fused kernel computes (`whole.Run`), where that is faster.
        """
        return self.once(
            ("blocks", num_heads, groups, device, is_fused),
            lambda: tuple(self._cut(num_heads, groups, device, is_fused)),
        )

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made under the key, made now if it was not: all layers of a model share it."""
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])

    @property
    def shares(self) -> bool:
        """Whether a segment continues another."""
        return any(parent >= 0 for parent in self.parents)

    def ancestry(self) -> tuple[Tensor, Tensor, Tensor]:
        """Segment [T] and place in its sequence [T] of each token; [N, N]: who continues whom.

        int64, int64 and bool; row i of the last is true for segment i and those it continues.
        """
        sees = torch.eye(len(self.lengths), dtype=torch.bool)
        depths: list[int] = []
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                sees[i] |= sees[parent]
            depths.append(0 if parent < 0 else depths[parent] + self.lengths[parent])
        segment = torch.repeat_interleave(torch.tensor(self.lengths))
        depth = [
            d + t for d, length in zip(depths, self.lengths, strict=True) for t in range(length)
        ]
        return segment, torch.tensor(depth, dtype=torch.int64), sees

    def chains(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Rows of each segment, and the keys its last row sees; int64."""

        def make() -> list[tuple[Tensor, Tensor]]:
            found = []
            for stretch in self._stretches(max(1, *self.lengths)):
                rows = torch.arange(stretch.start, stretch.end, device=device)
                before = torch.tensor(_members(stretch.before), dtype=torch.int64, device=device)
                found.append((rows, torch.cat((before, rows))))
            return found

        return self.once(("chains", device), make)

    def _stretches(self, num_rows: int) -> list[Stretch]:
        """All segments in stretches of at most so many rows."""
        starts = [0]
        for length in self.lengths:
            starts.append(starts[-1] + length)
        chains: list[tuple[tuple[int, int], ...]] = []
        stretches = []
        for i, (start, end) in enumerate(pairwise(starts)):
            above = chains[self.parents[i]] if self.parents[i] >= 0 else ()
            chains.append((*above, (start, end)))
            if i >= self.num_known:
                stretches += [
                    Stretch(row, min(row + num_rows, end), (*above, (start, row)))
                    for row in range(start, end, num_rows)
                ]
        return stretches

    def _cut(
        self, num_heads: int, groups: int, device: torch.device, is_fused: bool
    ) -> list[Block]:
        alike: dict[tuple[int, int], list[Stretch]] = {}
        for stretch in self._stretches(_rounded(max(1, TILE // groups))):
            rounded = _rounded(stretch.end - stretch.start)
            alike.setdefault((stretch.num_before, rounded), []).append(stretch)
        blocks = []
        for (num_before, rounded), stretches in alike.items():
            scores = num_heads * groups * rounded * _rounded(num_before + rounded)
            count = max(1, SCORES // scores)
            blocks += [
                self._block(stretches[i : i + count], device)
                for i in range(0, len(stretches), count)
            ]
        return blocks

    def _block(self, stretches: Sequence[Stretch], device: torch.device) -> Block:
        num_before = stretches[0].num_before
        num_rows = max(s.end - s.start for s in stretches)
        num_keys = _rounded(num_before + num_rows)
        ends = torch.tensor([[s.end] for s in stretches])
        rows = torch.tensor([[s.start] for s in stretches]) + torch.arange(num_rows)
        before = torch.tensor([_members(s.before) for s in stretches], dtype=torch.int64)
        own = rows[:, :1] + torch.arange(num_keys - num_before)
        known = sum(self.lengths[: self.num_known])
        return Block(
            rows=(rows.minimum(ends - 1) - known).to(device),
            places=torch.where(rows < ends, rows - known, self.num_rows).to(device),
            padding=(rows >= ends).flatten().nonzero()[:, 0].to(device),
            keys=torch.cat((before, own.minimum(ends - 1)), dim=1).to(device),
            num_before=num_before,
        )


def _rounded(count: int) -> int:
    """Up to the next multiple of ROUND_TO."""
    return -(-count // ROUND_TO) * ROUND_TO


def _members(ranges: tuple[tuple[int, int], ...]) -> list[int]:
    return [t for start, end in ranges for t in range(start, end)]
