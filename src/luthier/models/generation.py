"""Prompts become answers: greedy decoding or sampling, continuous batching, a shared prefix.

All prompts may begin alike (a system prompt, examples): that beginning is computed and kept once.
The rest of each prompt fills a slot of the key-value cache as one flat batch; then all slots
advance by one token at a time, and a slot whose answer has ended is given to the next prompt. The
engine knows token ids only. An answer does not depend on a row's neighbours, up to the rounding of
the precision computed in: each row draws from a random generator of its own.

Shapes: B slots, K key-value heads, G query heads per key-value head, P prefix tokens, L length of
a slot, D head width, T new tokens.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from luthier.models.adapters import fixed_adapters
from luthier.models.attention import attend
from luthier.models.layout import FlatLayout, Scoring
from luthier.models.loading import LanguageModel
from luthier.models.products import quick_count, quick_products

FILL_TOKENS = 2048
"""Prompt tokens computed at once."""

CACHE_BYTES = 512 * 2**20
"""Memory the key-value cache may take."""

MAX_SLOTS = 128
"""Prompts answered at once; more gain nothing on a CPU."""


def bytes_per_token(model: LanguageModel) -> int:
    """Memory one token takes in the key-value cache, over all layers."""
    config = model.base.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * width * model.head.weight.element_size())


@dataclass(frozen=True, slots=True)
class Sampling:
    """Tokens are drawn by their probabilities at a temperature, more than 0."""

    temperature: float
    seed: int = 0


@dataclass(slots=True)
class Generated:
    """An answer as ids, without the token that ended it."""

    ids: list[int] = field(default_factory=list)
    stopped: bool = False
    """True when the model ended the answer itself."""


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

    def begin_step(self, num_rows: int, device: torch.device) -> None:
        """The next run computes one token for each of the first slots."""
        self._layout, self._new = None, _NewTokens(self.lengths[:num_rows].clone(), device)

    def move(self, source: int, target: int) -> None:
        """Overwrite a slot with another."""
        length = int(self.lengths[source])
        for keys, values in self._slots.values():
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]
        self.lengths[target] = length

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
            self._slots[layer] = (like.new_zeros(shape), like.new_zeros(shape))
        return self._slots[layer]

    def _step(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """One new token per slot: T = number of slots in use."""
        step, (num_heads, num_rows, groups, width) = self._new, query.shape
        assert step is not None, "begin_step comes first"
        keys, values = self._slot_tensors(layer, key)
        places = step.places(num_heads, self._slot_length)
        for kept, new in ((keys, key), (values, value)):
            kept.view(-1, width).index_copy_(0, places, new.transpose(0, 1).reshape(-1, width))
        # Slots and heads as one axis: so a part of each slot's length is read without a copy.
        keys, values = (x.flatten(0, 1)[: num_rows * num_heads, : step.longest]
                        for x in (keys, values))  # fmt: skip
        asked = query.transpose(0, 1).reshape(num_rows * num_heads, groups, width)
        scores = torch.bmm(asked, keys.transpose(1, 2)).view(num_rows, num_heads, groups, -1)
        if layer in self._prefix:
            flat = query.reshape(num_heads, num_rows * groups, width)
            shared = torch.bmm(flat, self._prefix[layer][0].transpose(1, 2))
            shared = shared.view(num_heads, num_rows, groups, -1).transpose(0, 1)
            scores = torch.cat((shared, scores), dim=-1)
        prefix_length = scores.shape[-1] - step.longest
        scores = scores.float().mul_(scoring.scale)
        if scoring.cap is not None:
            scores.div_(scoring.cap).tanh_().mul_(scoring.cap)
        scores += step.mask(prefix_length, scoring.window, scores.device)
        shares = scores.softmax(dim=-1).to(query.dtype)
        own = shares[..., prefix_length:].reshape(num_rows * num_heads, groups, -1)
        mixed = torch.bmm(own, values).view(num_rows, num_heads, groups, width).transpose(0, 1)
        if prefix_length:
            flat = shares[..., :prefix_length].transpose(0, 1).reshape(num_heads, -1, prefix_length)
            mixed = mixed + torch.bmm(flat, self._prefix[layer][1]).view_as(mixed)
        return mixed


class _NewTokens:
    """Where one new token per slot goes, and what it sees: the same in all layers alike."""

    def __init__(self, positions: Tensor, device: torch.device) -> None:
        self._positions, self._device = positions, device
        self.longest = int(positions.max()) + 1
        self._masks: dict[tuple[int, int | None], Tensor] = {}
        self._places: dict[int, Tensor] = {}

    def places(self, num_heads: int, slot_length: int) -> Tensor:
        """Rows [B * K] of a cache [B * K * L, D] that the new tokens fill."""
        if num_heads not in self._places:
            slots = torch.arange(len(self._positions))[:, None] * num_heads
            lines = slots + torch.arange(num_heads)
            found = lines * slot_length + self._positions[:, None]
            self._places[num_heads] = found.flatten().to(self._device)
        return self._places[num_heads]

    def mask(self, prefix_length: int, window: int | None, device: torch.device) -> Tensor:
        """0 for each key [B, 1, 1, P + L] that a new token sees, else -inf; float32."""
        if (prefix_length, window) not in self._masks:
            num_keys = prefix_length + self.longest
            # Distance of each key behind the new token; negative lies ahead.
            behind = prefix_length + self._positions[:, None] - torch.arange(num_keys)
            unseen = behind < 0 if window is None else (behind < 0) | (behind >= window)
            mask = torch.zeros(unseen.shape).masked_fill_(unseen, -torch.inf)
            self._masks[prefix_length, window] = mask[:, None, None].to(device)
        return self._masks[prefix_length, window]


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    num_slots: int | None = None,
    sampling: Sampling | None = None,
    observe: Callable[[int], None] = lambda finished: None,
) -> list[Generated]:
    """The answer to each prompt, in the order given: greedy, or drawn with `sampling`.

    `num_slots` prompts are answered at once, by default as many as CACHE_BYTES holds; `observe`
    is told how many are finished.
    """
    if not prompts:
        return []
    limits = _Limits(max_new_tokens, frozenset(stop_ids), sampling)
    if model.padded_because:
        return _generate_plainly(model, prompts, limits, observe)
    if num_slots is None:
        length = max(len(prompt) for prompt in prompts) - _common_prefix(prompts) + max_new_tokens
        num_slots = min(MAX_SLOTS, max(1, CACHE_BYTES // (length * bytes_per_token(model))))
    with fixed_adapters(model.network), quick_products(model.network):
        return _Batch(model, prompts, limits, num_slots).run(observe)


@dataclass(frozen=True, slots=True)
class _Limits:
    """When answers end, and how tokens are chosen."""

    max_new_tokens: int
    stop_ids: frozenset[int]
    sampling: Sampling | None

    def generator(self, row: int) -> torch.Generator:
        """Of a row's own luck."""
        seed = self.sampling.seed if self.sampling else 0
        mixed = hashlib.blake2b(f"{seed}/{row}".encode(), digest_size=7).digest()
        return torch.Generator().manual_seed(int.from_bytes(mixed, "big"))


def _generate_plainly(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: _Limits,
    observe: Callable[[int], None],
) -> list[Generated]:
    """The same by transformers alone, one prompt after the other."""
    answers = []
    sampling, stop_ids = limits.sampling, limits.stop_ids
    drawn: dict[str, Any] = {"do_sample": False}
    if sampling:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    for row, prompt in enumerate(prompts):
        ids = torch.tensor([prompt], device=model.device)
        with torch.random.fork_rng():
            torch.manual_seed(limits.generator(row).initial_seed())
            found = model.network.generate(  # type: ignore[operator]
                input_ids=ids, attention_mask=torch.ones_like(ids),
                max_new_tokens=limits.max_new_tokens, eos_token_id=[*stop_ids] or [-1],
                pad_token_id=0, **drawn,
            )[0, len(prompt) :].tolist()  # fmt: skip
        stopped = bool(found) and found[-1] in stop_ids
        answers.append(Generated(found[:-1] if stopped else found, stopped))
        observe(len(answers))
    return answers


class _Batch:
    """The state of one call of `generate`: which prompt is in which slot."""

    def __init__(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        limits: _Limits,
        num_slots: int,
    ) -> None:
        self.model, self.prompts, self.limits = model, prompts, limits
        self.prefix = _common_prefix(prompts)
        self.num_slots = min(num_slots, len(prompts))
        longest = max(len(prompt) for prompt in prompts) - self.prefix
        room = quick_count(self.num_slots, model.head.weight)
        self.cache = KeyValueCache(room, longest + limits.max_new_tokens)
        # Prompts of like length stand together, so that slots fill and end together.
        self.pending = deque(sorted(range(len(prompts)), key=lambda i: len(prompts[i])))
        self.active: list[int] = []
        self.answers = [Generated() for _ in prompts]
        rows = range(len(prompts)) if limits.sampling else ()
        self.luck = [limits.generator(row) for row in rows]

    def run(self, observe: Callable[[int], None]) -> list[Generated]:
        if self.prefix:
            self.cache.begin_prefix(self.prefix)
            self._forward(list(self.prompts[0][: self.prefix]), list(range(self.prefix)))
        while self.pending or self.active:
            free = self.num_slots - len(self.active)
            if self.pending and (free * 4 >= self.num_slots or not self.active):
                self._fill(free)
            else:
                self._step()
            observe(len(self.prompts) - len(self.pending) - len(self.active))
        return self.answers

    def _forward(self, ids: list[int], positions: list[int]) -> Tensor:
        device = self.model.device
        return self.model.run(
            torch.tensor(ids, device=device), torch.tensor(positions, device=device),
            cache=self.cache,
        )  # fmt: skip

    def _fill(self, free: int) -> None:
        """Compute the next prompts into free slots, and take their first tokens."""
        rows: list[int] = []
        num_tokens = 0
        while self.pending and len(rows) < free:
            length = len(self.prompts[self.pending[0]]) - self.prefix
            if rows and num_tokens + length > FILL_TOKENS:
                break
            rows.append(self.pending.popleft())
            num_tokens += length
        rests = [self.prompts[i][self.prefix :] for i in rows]
        self.cache.begin_fill(len(self.active), [len(rest) for rest in rests])
        positions = [self.prefix + t for rest in rests for t in range(len(rest))]
        hidden = self._forward([token for rest in rests for token in rest], positions)
        ends = torch.tensor([len(rest) for rest in rests], device=hidden.device).cumsum(0) - 1
        first = len(self.active)
        self.active += rows
        self._take(first, hidden[ends])

    def _step(self) -> None:
        """One more token for every active slot."""
        tokens = [self.answers[i].ids[-1] for i in self.active]
        # Slots that nobody reads are computed, too, where so many are faster.
        idle = quick_count(len(tokens), self.model.head.weight) - len(tokens)
        self.cache.lengths[len(tokens) : len(tokens) + idle] = 0
        positions = (self.cache.lengths[: len(tokens) + idle] + self.prefix).tolist()
        self.cache.begin_step(len(positions), self.model.device)
        hidden = self._forward(tokens + [0] * idle, positions)
        self.cache.lengths[: len(self.active)] += 1
        self._take(0, hidden)

    def _take(self, first_slot: int, hidden: Tensor) -> None:
        """Append a token to each row; free the slots of answers that have ended.

        There may be more hidden states than active slots.
        """
        rows = self.active[first_slot : first_slot + len(hidden)]
        tokens = self._choose(self.model.logits(hidden)[: len(rows)], rows)
        for slot in reversed(range(first_slot, first_slot + len(tokens))):
            answer, token = self.answers[self.active[slot]], tokens[slot - first_slot]
            if token in self.limits.stop_ids:
                answer.stopped = True
            else:
                answer.ids.append(token)
            if answer.stopped or len(answer.ids) == self.limits.max_new_tokens:
                self._free(slot)

    def _choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """A token for each row of logits [B, V]: the likeliest, or one drawn by the row's luck."""
        if self.limits.sampling is None:
            return [int(token) for token in logits.argmax(dim=-1).tolist()]
        shares = (logits.float() / self.limits.sampling.temperature).softmax(dim=-1).cpu()
        return [
            int(own.multinomial(1, generator=self.luck[row]))
            for own, row in zip(shares, rows, strict=True)
        ]

    def _free(self, slot: int) -> None:
        last = len(self.active) - 1
        if slot != last:
            self.cache.move(last, slot)
            self.active[slot] = self.active[last]
        self.active.pop()


def _common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens with which all prompts begin; at least one token of each is left over."""
    first = prompts[0]
    end = min(len(prompt) for prompt in prompts) - 1
    for t in range(end):
        if any(prompt[t] != first[t] for prompt in prompts):
            return t
    return max(end, 0)
