"""Prompts become answers: greedy decoding or sampling, continuous batching, a shared prefix.

All prompts may begin alike (a system prompt, examples): that beginning is computed and kept once.
The rest of each prompt fills a slot of the key-value cache as one flat batch; then all slots
advance together, by one token and those guessed right, and a slot whose answer has ended is given
to the next prompt. The engine knows token ids only. An answer does not depend on a row's
neighbours, up to the rounding of the precision computed in: each row draws from a random generator
of its own.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from luthier.models.adapters import fixed_adapters
from luthier.models.cache import KeyValueCache, bytes_per_token
from luthier.models.guessing import LOOKS_BACK, MOST_AHEAD, Guess, Guesses
from luthier.models.loading import LanguageModel
from luthier.models.products import likeliest, quick_counts, quick_products

FILL_TOKENS = 2048
"""Prompt tokens computed at once."""

CACHE_BYTES = 512 * 2**20
"""Memory the key-value cache may take."""

MAX_SLOTS = 128
"""Prompts answered at once; more gain nothing on a CPU."""

SPARE = 16
"""Places of a slot for tokens guessed behind the last one that an answer may have."""


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


@torch.inference_mode()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int],
    num_slots: int | None = None,
    sampling: Sampling | None = None,
    most_ahead: int = MOST_AHEAD,
    observe: Callable[[int], None] = lambda finished: None,
) -> list[Generated]:
    """The answer to each prompt, in the order given: greedy, or drawn with `sampling`.

    `num_slots` prompts are answered at once, by default as many as CACHE_BYTES holds; at most
    `most_ahead` tokens are guessed ahead, which answers do not depend on; `observe` is told how
    many are finished.
    """
    if not prompts:
        return []
    limits = _Limits(max_new_tokens, frozenset(stop_ids), sampling, most_ahead)
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
    most_ahead: int

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
        self.cache = KeyValueCache(self.num_slots, longest + limits.max_new_tokens + SPARE)
        # Prompts of like length stand together, so that slots fill and end together.
        self.pending = deque(sorted(range(len(prompts)), key=lambda i: len(prompts[i])))
        self.active: list[int] = []
        self.answers = [Generated() for _ in prompts]
        rows = range(len(prompts)) if limits.sampling else ()
        self.luck = [limits.generator(row) for row in rows]
        self.guesses = Guesses()
        self.guesses.learn(prompts[0][: self.prefix])

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
        for row in rows if self.limits.most_ahead else ():
            self.guesses.learn(self.prompts[row], self.prefix)
        self._take(first, hidden[ends], [Guess() for _ in rows])

    def _step(self) -> None:
        """At least one more token for every active slot."""
        contexts = [self._context(row) for row in self.active]
        most = len(contexts) * (1 + self.limits.most_ahead)
        totals = quick_counts(len(contexts), most, self.model.head.weight)
        guesses = self.guesses.ahead(contexts, totals, self.limits.most_ahead)
        kept = self.cache.lengths[: len(self.active)].tolist()
        ids: list[int] = []
        positions: list[int] = []
        for context, guess, length in zip(contexts, guesses, kept, strict=True):
            ids += [context[-1], *guess.ids]
            first = self.prefix + length
            positions += range(first, first + 1 + len(guess.ids))
        self.cache.begin_step([1 + len(guess.ids) for guess in guesses], self.model.device)
        self._take(0, self._forward(ids, positions), guesses)

    def _context(self, row: int) -> Sequence[int]:
        """The last tokens of a row, enough to guess the next."""
        ends = (*self.prompts[row][-LOOKS_BACK:], *self.answers[row].ids[-LOOKS_BACK:])
        return ends[-LOOKS_BACK:]

    def _take(self, first_slot: int, hidden: Tensor, guesses: Sequence[Guess]) -> None:
        """Append what the model chose to each row; free the slots of answers that have ended.

        The hidden states are those of each slot's newest token and of the tokens guessed.
        """
        choose, start = self._chooser(self.model.logits(hidden)), 0
        ended = []
        for slot, guess in enumerate(guesses, start=first_slot):
            row = self.active[slot]
            end = start + 1 + len(guess.ids)
            if self._settle(row, guess, choose, range(start, end)):
                ended.append(slot)
            start = end
            # The newest token is not in the cache yet, nor is what was guessed wrongly any more.
            length = len(self.prompts[row]) - self.prefix + len(self.answers[row].ids) - 1
            self.cache.lengths[slot] = length
        for slot in reversed(ended):
            self._free(slot)

    def _settle(
        self, row: int, guess: Guess, choose: Callable[[int, int], int], places: range
    ) -> bool:
        """Append tokens to a row's answer while guesses are right; True when it has ended."""
        answer, context = self.answers[row], self._context(row)
        settled: list[int] = []
        for ahead, place in zip((*guess.ids, None), places, strict=True):
            token = choose(place, row)
            settled.append(token)
            if token in self.limits.stop_ids:
                answer.stopped = True
            else:
                answer.ids.append(token)
            if answer.stopped or len(answer.ids) == self.limits.max_new_tokens or token != ahead:
                break
        if self.limits.most_ahead:
            self.guesses.judge(guess, settled)
            self.guesses.learn([*context, *settled], len(context))
        return answer.stopped or len(answer.ids) == self.limits.max_new_tokens

    def _chooser(self, logits: Tensor) -> Callable[[int, int], int]:
        """Chooses a token by logits [T, V] at t for a row: the likeliest, or by its own luck."""
        if self.limits.sampling is None:
            best = likeliest(logits).tolist()
            return lambda t, row: int(best[t])
        shares = (logits.float() / self.limits.sampling.temperature).softmax(dim=-1).cpu()
        return lambda t, row: int(shares[t].multinomial(1, generator=self.luck[row]))

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
