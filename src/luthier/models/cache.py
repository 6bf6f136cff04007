"""Keys and values that attention remembers: one shared prefix, and slots of their own.

Shapes: B slots, K key-value heads, G query heads per key-value head, P prefix tokens, L length of
a slot, D head width, T new tokens, M most new tokens of one slot.
"""

import math
from collections.abc import Sequence
from mmap import mmap

import torch
from torch import Tensor

from luthier.models.attention import attend
from luthier.models.layout import FlatLayout, Scoring
from luthier.models.loading import LanguageModel


def bytes_per_token(model: LanguageModel) -> int:
    """Memory one token takes in the key-value cache, over all layers."""
    config = model.base.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.head.weight.element_size())


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros that take up memory only where they are written: most slots are never full."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    pages = mmap(-1, math.prod(shape) * like.element_size())
    return torch.frombuffer(pages, dtype=like.dtype).view(shape)


class KeyValueCache:
    """Keys and values per layer: one shared prefix, and B slots of at most L further tokens."""

    def __init__(self, num_slots: int, slot_length: int) -> None:
        self._num_slots, self._slot_length = num_slots, slot_length
        self._prefix: dict[int, tuple[Tensor, Tensor]] = {}
        self._slots: dict[int, tuple[Tensor, Tensor]] = {}
        self.lengths = torch.zeros(num_slots, dtype=torch.int64)
        self._new_lengths: tuple[int, ...] = ()
        self._first_slot = 0
        self._layout: FlatLayout | None = None
        self._new: _NewTokens | None = None

    @property
    def prefix_length(self) -> int:
        """Tokens of the shared prefix."""
        return next((key.shape[1] for key, _ in self._prefix.values()), 0)

    def begin_prefix(self, length: int) -> None:
        """The next run computes the shared prefix of `length` tokens."""
        self._first_slot, self._layout = -1, FlatLayout.of((length,))

    def begin_fill(self, first_slot: int, lengths: Sequence[int]) -> None:
        """The next run computes prompts of these lengths into the slots from `first_slot` on."""
        self._first_slot, self._new_lengths = first_slot, tuple(lengths)
        self._layout = FlatLayout.after(self.prefix_length, lengths)
        self.lengths[first_slot : first_slot + len(lengths)] = torch.tensor(lengths)

    def begin_step(self, counts: Sequence[int], device: torch.device, first_slot: int = 0) -> None:
        """The next run computes so many further tokens for each of the slots from `first_slot` on.

        They count as kept only when `lengths` is raised; else the next ones take their places.
        """
        self._layout, self._first_slot = None, first_slot
        kept = self.lengths[first_slot : first_slot + len(counts)]
        self._new = _NewTokens(kept, torch.tensor(counts), device)

    def move(self, source: int, target: int) -> None:
        """Overwrite a slot with another."""
        length = int(self.lengths[source])
        self.copy(source, target, length)
        self.lengths[target] = length

    def copy(self, source: int, target: int, length: int) -> None:
        """Overwrite the beginning of a slot with another's."""
        for keys, values in self._slots.values():
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]

    def swap(self, a: int, b: int) -> None:
        """Let two slots change places."""
        length = int(self.lengths[[a, b]].max())
        for kept in (x for pair in self._slots.values() for x in pair):
            kept[[a, b], :, :length] = kept[[b, a], :, :length]
        self.lengths[[a, b]] = self.lengths[[b, a]]

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Remember key and value [K, T, D]; attention of query [K, T, G, D], same shape."""
        if self._layout is None:
            return self._step(layer, query, key, value, scoring)
        if self._first_slot < 0:
            self._prefix[layer] = (key, value)
            return attend(query, key, value, self._layout, scoring)
        keys, values = self._slot_tensors(layer, key)
        start = 0
        for i, length in enumerate(self._new_lengths):
            keys[self._first_slot + i, :, :length] = key[:, start : start + length]
            values[self._first_slot + i, :, :length] = value[:, start : start + length]
            start += length
        if layer in self._prefix:
            prefix_key, prefix_value = self._prefix[layer]
            key = torch.cat((prefix_key, key), dim=1)
            value = torch.cat((prefix_value, value), dim=1)
        return attend(query, key, value, self._layout, scoring)

    def _slot_tensors(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._slots:
            shape = (self._num_slots, like.shape[0], self._slot_length, like.shape[2])
            self._slots[layer] = (_zeros(shape, like), _zeros(shape, like))
        return self._slots[layer]

    def _step(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """New tokens of all slots in use, [K, T, G, D] as in `attend`."""
        step, (num_heads, num_tokens, groups, width) = self._new, query.shape
        assert step is not None, "begin_step comes first"
        keys, values = self._slot_tensors(layer, key)
        keys, values = keys[self._first_slot :], values[self._first_slot :]
        places = step.places(num_heads, self._slot_length)
        for kept, new in ((keys, key), (values, value)):
            kept.view(-1, width).index_copy_(0, places, new.transpose(0, 1).reshape(-1, width))
        # Slots and heads as one axis: so a part of each slot's length is read without a copy.
        keys, values = (x.flatten(0, 1)[: step.num_slots * num_heads, : step.longest]
                        for x in (keys, values))  # fmt: skip
        asked = step.by_slot(query.transpose(0, 1))
        scores = step.by_token(torch.bmm(asked, keys.transpose(1, 2)), num_heads)
        if layer in self._prefix:
            flat = query.reshape(num_heads, num_tokens * groups, width)
            shared = torch.bmm(flat, self._prefix[layer][0].transpose(1, 2))
            shared = shared.view(num_heads, num_tokens, groups, -1).transpose(0, 1)
            scores = torch.cat((shared, scores), dim=-1)
        prefix_length = scores.shape[-1] - step.longest
        scores = scores.float().mul_(scoring.scale)
        if scoring.cap is not None:
            scores.div_(scoring.cap).tanh_().mul_(scoring.cap)
        scores += step.mask(prefix_length, scoring.window, scores.device)
        shares = scores.softmax(dim=-1).to(query.dtype)
        own = step.by_slot(shares[..., prefix_length:])
        mixed = step.by_token(torch.bmm(own, values), num_heads).transpose(0, 1)
        if prefix_length:
            flat = shares[..., :prefix_length].transpose(0, 1).reshape(num_heads, -1, prefix_length)
            mixed = mixed + torch.bmm(flat, self._prefix[layer][1]).view_as(mixed)
        return mixed


class _NewTokens:
    """Where new tokens of slots go, and what they see: the same in all layers alike."""

    def __init__(self, kept: Tensor, counts: Tensor, device: torch.device) -> None:
        self.num_slots, self._most = len(counts), int(counts.max())
        self._device = device
        starts = counts.cumsum(0) - counts
        self._slots = torch.arange(len(counts)).repeat_interleave(counts)
        behind_first = torch.arange(int(counts.sum())) - starts[self._slots]
        self._positions = kept[self._slots] + behind_first
        self.longest = int(self._positions.max()) + 1
        # Slots with fewer new tokens than others repeat their last one; nobody reads it.
        steps = torch.arange(self._most).minimum(counts[:, None] - 1)
        self._padded = (starts[:, None] + steps).to(device)
        self._unpadded = (self._slots * self._most + behind_first).to(device)
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self._places: dict[int, Tensor] = {}

    def places(self, num_heads: int, slot_length: int) -> Tensor:
        """Rows [T * K] of a cache [B * K * L, D] that the new tokens fill."""
        if num_heads not in self._places:
            lines = self._slots[:, None] * num_heads + torch.arange(num_heads)
            found = lines * slot_length + self._positions[:, None]
            self._places[num_heads] = found.flatten().to(self._device)
        return self._places[num_heads]

    def by_slot(self, rows: Tensor) -> Tensor:
        """Rows of new tokens [T, K, G, W] as [B * K, M * G, W]."""
        if self._most > 1:
            rows = rows[self._padded].transpose(1, 2).flatten(2, 3)
        return rows.flatten(0, 1)

    def by_token(self, rows: Tensor, num_heads: int) -> Tensor:
        """The reverse: [B * K, M * G, W] as [T, K, G, W]."""
        width = rows.shape[-1]
        if self._most == 1:
            return rows.view(self.num_slots, num_heads, -1, width)
        rows = rows.view(self.num_slots, num_heads, self._most, -1, width).transpose(1, 2)
        return rows.reshape(self.num_slots * self._most, num_heads, -1, width)[self._unpadded]

    def mask(self, prefix_length: int, window: int | None, device: torch.device) -> Tensor:
        """0 for each key [T, 1, 1, P + L] that a new token sees, else -inf; float32."""
        if (prefix_length, window) not in self._masks:
            num_keys = prefix_length + self.longest
            # Distance of each key behind the new token; negative lies ahead.
            behind = prefix_length + self._positions[:, None] - torch.arange(num_keys)
            unseen = behind < 0 if window is None else (behind < 0) | (behind >= window)
            mask = torch.zeros(unseen.shape).masked_fill_(unseen, -torch.inf)
            self._masks[prefix_length, window] = mask[:, None, None].to(device)
        return self._masks[prefix_length, window]
