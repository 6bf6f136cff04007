"""Sequences of ids become one flat batch: no padding, common prompt beginnings only once.

A sequence's supervised tokens become (position, target) pairs for the head. Sequences that begin
alike share a segment up to, at most, the first supervised target, so that a system prompt, a set
of examples in the prompt, or the prompt of two answers is computed once per batch. The loss and
its gradient are those of the sequences one by one (no dropout may act on shared tokens).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from luthier.models.layout import FlatLayout
from luthier.tokens import IGNORED

MIN_SHARED = 8
"""Tokens that must be alike for a segment to be shared; below, the bookkeeping costs more."""

ROUND_TO = 32
"""Tokens in a batch are a multiple of this: matrix kernels are compiled, and kept, per shape."""


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """T tokens of several sequences on one axis, and the S predictions that carry loss."""

    input_ids: Tensor
    """[T] int64."""
    position_ids: Tensor
    """[T] int64, counted from the start of each sequence."""
    layout: FlatLayout
    index: Tensor
    """[S] int64: the token whose hidden state predicts the target."""
    predicting: Tensor
    """[P] int64: the tokens in `index`, each once."""
    targets: Tensor
    """[S] int64."""
    owners: Tensor
    """[S] int64: number of the sequence the prediction belongs to."""
    num_tokens: int
    """Tokens of the sequences as they came, shared or not: what throughput counts."""
    num_sequences: int
    segments: tuple[tuple[int, int], ...]
    """Length of each segment, and the segment it continues or -1; the last one is filler."""

    @property
    def num_filler(self) -> int:
        """Tokens that nobody sees."""
        return self.segments[-1][0]

    def to(self, device: torch.device) -> "FlatBatch":
        """The same batch on another device."""
        if self.input_ids.device == device:
            return self

        def moved(x: Tensor) -> Tensor:
            # From pinned memory it is copied while the GPU computes.
            return (x.pin_memory() if device.type == "cuda" else x).to(device, non_blocking=True)

        return replace(
            self,
            input_ids=moved(self.input_ids),
            position_ids=moved(self.position_ids),
            index=moved(self.index),
            predicting=moved(self.predicting),
            targets=moved(self.targets),
            owners=moved(self.owners),
        )


@dataclass(slots=True)
class _Segment:
    """A stretch of tokens shared by some sequences, continuing its parent."""

    parent: int
    depth: int
    tokens: Sequence[int]


def pack(
    input_ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *, share: bool = True
) -> FlatBatch:
    """Pack sequences into a flat batch; labels are ids or IGNORED, aligned with input_ids.

    Tokens after a sequence's last supervised one predict nothing and are left out, as is that
    last one itself: it is a target only. The batch ends in a few tokens that nobody sees, so that
    its length is a multiple of ROUND_TO.
    """
    supervised = [[t for t, x in enumerate(row) if x != IGNORED and t > 0] for row in labels]
    used = [ids[: row[-1]] if row else [] for ids, row in zip(input_ids, supervised, strict=True)]
    limits = [row[0] if row and share else 0 for row in supervised]
    segments: list[_Segment] = []
    last_segment = [-1] * len(used)
    live = [i for i in range(len(used)) if used[i]]
    _plant(used, limits, live, _Segment(-1, 0, ()), segments, last_segment)
    segments.append(_Segment(-1, 0, [0] * (-sum(len(s.tokens) for s in segments) % ROUND_TO)))

    starts = _starts(segments)
    index, targets, owners = [], [], []
    for i in live:
        chain = _chain(segments, last_segment[i])
        for token in supervised[i]:
            segment = next(s for s in chain if token - 1 >= segments[s].depth)
            index.append(starts[segment] + token - 1 - segments[segment].depth)
            targets.append(input_ids[i][token])
            owners.append(i)
    return FlatBatch(
        input_ids=torch.tensor([t for s in segments for t in s.tokens], dtype=torch.int64),
        position_ids=torch.tensor(
            [p for s in segments for p in range(s.depth, s.depth + len(s.tokens))],
            dtype=torch.int64,
        ),
        layout=FlatLayout.of([len(s.tokens) for s in segments], [s.parent for s in segments]),
        index=torch.tensor(index, dtype=torch.int64),
        predicting=torch.tensor(sorted(set(index)), dtype=torch.int64),
        targets=torch.tensor(targets, dtype=torch.int64),
        owners=torch.tensor(owners, dtype=torch.int64),
        num_tokens=sum(len(ids) for ids in input_ids),
        num_sequences=len(input_ids),
        segments=tuple((len(s.tokens), s.parent) for s in segments),
    )


def cut_in_order(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Ranges [start, end) of neighbours of at most `budget` tokens together."""
    ranges: list[tuple[int, int]] = []
    start, filled = 0, 0
    for i, length in enumerate(lengths):
        if i > start and filled + length > budget:
            ranges.append((start, i))
            start, filled = i, 0
        filled += length
    return [*ranges, (start, len(lengths))] if lengths else []


def _plant(
    used: list[Sequence[int]],
    limits: list[int],
    group: list[int],
    above: _Segment,
    segments: list[_Segment],
    last_segment: list[int],
) -> None:
    """Add segments for a group of sequences that are alike up to the end of `above`."""
    parent = len(segments) - 1 if above.tokens else above.parent
    depth = above.depth + len(above.tokens)
    rest: dict[tuple[int, ...], list[int]] = {}
    for i in group:
        key = tuple(used[i][depth : depth + MIN_SHARED]) if limits[i] >= depth + MIN_SHARED else ()
        rest.setdefault(key or (-1, i), []).append(i)
    for members in rest.values():
        if len(members) == 1:
            if len(used[members[0]]) > depth:
                segments.append(_Segment(parent, depth, used[members[0]][depth:]))
                last_segment[members[0]] = len(segments) - 1
            else:
                last_segment[members[0]] = parent
            continue
        end = _common_length([used[i] for i in members], depth, min(limits[i] for i in members))
        shared = _Segment(parent, depth, used[members[0]][depth:end])
        segments.append(shared)
        _plant(used, limits, members, shared, segments, last_segment)


def _common_length(sequences: list[Sequence[int]], start: int, limit: int) -> int:
    """Length of the longest common beginning, at least `start` and at most `limit`."""
    first = sequences[0]
    end = min(limit, *(len(sequence) for sequence in sequences))
    for t in range(start, end):
        if any(sequence[t] != first[t] for sequence in sequences):
            return t
    return end


def _starts(segments: list[_Segment]) -> list[int]:
    starts, total = [], 0
    for segment in segments:
        starts.append(total)
        total += len(segment.tokens)
    return starts


def _chain(segments: list[_Segment], segment: int) -> list[int]:
    """The segment and its parents, deepest first."""
    chain = []
    while segment >= 0:
        chain.append(segment)
        segment = segments[segment].parent
    return chain
