"""An engine that answers requests as they come: new ones join between two steps of the others.

Continuous batching (Yu et al. 2022, "Orca"): each request has a slot of the key-value cache; all
slots advance together, each with its own adapter, sampling and limit, by one token and those that
were guessed right. What a slot holds stays when its answer has ended, until the slot is needed: a
request that begins like one before computes only the rest.

One thread computes; `submit` and `cancel` may be called from any other.
"""

import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from luthier.errors import LuthierError, ModelError
from luthier.models.cache import KeyValueCache
from luthier.models.guessing import LOOKS_BACK, MOST_AHEAD, Guess, Guesses
from luthier.models.layout import FlatLayout
from luthier.models.loading import LanguageModel
from luthier.models.mixing import MixedAdapters
from luthier.models.products import likeliest, quick_counts

FILL_TOKENS = 1024
"""Tokens of new prompts computed between two steps."""

LEAST_SHARED = 8
"""Tokens that must be alike for them to be copied from another slot."""

WEIGHED_AT_ONCE = 128
"""Tokens whose logits are there at once."""

SPARE = 16
"""Places of a slot for tokens guessed behind the last one that an answer may have."""


Allow = Callable[[Sequence[int]], Tensor]
"""Which tokens may follow an answer so far, bool [V]; asked for each token once, in order."""


@dataclass(frozen=True, slots=True)
class Choosing:
    """How tokens are chosen: greedily at temperature 0, else drawn."""

    temperature: float = 1.0
    top_p: float = 1.0
    """Only the likeliest tokens that have this much probability together are drawn from."""
    seed: int | None = None
    frequency_penalty: float = 0.0
    """Taken from a token's logit for each time the answer has it."""
    presence_penalty: float = 0.0
    """Taken from the logits of all tokens that the answer has."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    form: str = ""
    """A grammar that the answer is held to, as `luthier.tokens.forms` writes them."""

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is all that counts."""
        has_more = self.frequency_penalty or self.presence_penalty or self.logit_bias or self.form
        return self.temperature == 0 and not has_more


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    ids: Sequence[int]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    adapter: str = ""
    """Empty: the base itself."""
    choosing: Choosing = Choosing()
    num_logprobs: int | None = None
    """Likeliest tokens told beside each chosen one; None where no log-likelihoods are told."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an answer; log-likelihoods are the model's own, before sampling."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """No more tokens come."""

    reason: str
    """stop, length or cancelled."""
    num_cached: int = 0
    """Tokens of the prompt that need not be computed."""


Told = Piece | End | Exception


class Answer:
    """What comes of a request: pieces, then an end or an error, in the engine's thread."""

    def __init__(
        self, asked: Asked, tell: Callable[[Told], None], allow: Allow | None = None
    ) -> None:
        self.asked, self.tell, self.allow = asked, tell, allow
        self.is_cancelled = False

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.is_cancelled = True


@dataclass
class _Row:
    """A request in a slot."""

    answer: Answer
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    num_cached: int = 0

    @property
    def asked(self) -> Asked:
        return self.answer.asked

    @property
    def context(self) -> tuple[int, ...]:
        """The last tokens, enough to guess the next."""
        ends = (*self.asked.ids[-LOOKS_BACK:], *self.ids[-LOOKS_BACK:])
        return tuple(ends[-LOOKS_BACK:])

    @property
    def is_full(self) -> bool:
        return len(self.ids) >= self.asked.max_new_tokens


class Engine:
    """A model that answers, with its adapters."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        num_slots: int = 16,
        context: int = 2048,
        most_ahead: int = MOST_AHEAD,
        hold_to: Callable[[str], Allow] | None = None,
    ) -> None:
        """`context`: tokens that a prompt and its answer may have together; `hold_to` says which
        may follow in an answer that is held to a form."""
        self.model, self.adapters, self.context = model, MixedAdapters(model), context
        self._num_slots, self._most_ahead, self._hold_to = num_slots, most_ahead, hold_to
        self._cache = KeyValueCache(num_slots, context + SPARE)
        self._kept: list[tuple[str, list[int]]] = [("", [])] * num_slots
        """Adapter and tokens of what each slot holds, also of answers that have ended."""
        self._rows: list[_Row] = []
        self._guesses = Guesses()
        self._waiting: deque[Answer] = deque()
        self._errands: deque[tuple[Callable[[], None], queue.SimpleQueue[Exception | None]]] = (
            deque()
        )
        self._changed, self._is_over = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    # From any thread

    def submit(self, asked: Asked, tell: Callable[[Told], None]) -> Answer:
        """Ask; what comes is told in the engine's thread, which must not be held up.

        Raises ModelError where an answer cannot be held to the form that is asked for.
        """
        answer = Answer(asked, tell, self._allowing(asked.choosing.form))
        with self._changed:
            if self._is_over:
                tell(End("cancelled"))
                return answer
            self._waiting.append(answer)
            self._changed.notify()
        return answer

    def _allowing(self, form: str) -> Allow | None:
        if not form:
            return None
        if self._hold_to is None:
            raise ModelError("holds answers to no form")
        return self._hold_to(form)

    @property
    def vocabulary(self) -> int:
        """Tokens that may follow, [V] of its logits."""
        return int(self.model.head.weight.shape[0])

    @property
    def num_waiting(self) -> int:
        """Requests that have no slot yet."""
        return len(self._waiting)

    @property
    def num_active(self) -> int:
        """Requests that are being answered."""
        return len(self._rows)

    def weigh(self, ids: Sequence[int], adapter: str, num_top: int) -> list[Piece]:
        """How likely each of these tokens but the first is after those before it."""
        found: list[Piece] = []
        if len(ids) > 1:
            self.do(lambda: found.extend(self._weigh(ids, adapter, num_top)))
        return found

    def do(self, errand: Callable[[], None]) -> None:
        """Let the engine's thread do something between two steps; raises what it raises.

        Raises ModelError where the engine has ended.
        """
        done: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        with self._changed:
            if self._is_over:
                raise ModelError("was put away")
            self._errands.append((errand, done))
            self._changed.notify()
        if error := done.get():
            raise error

    def forget(self, adapter: str) -> bool:
        """Forget an adapter, unless an answer is being written with it; whether it is forgotten.

        Requests that wait for it are told that they are cancelled.
        """
        forgotten: list[str] = []

        def work() -> None:
            if all(row.asked.adapter != adapter for row in self._rows):
                self.adapters.remove(adapter)
                forgotten.append(adapter)

        self.do(work)
        return bool(forgotten)

    def close(self) -> None:
        """End; requests under way are told that they are cancelled."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._thread.join()

    # In the engine's thread

    def _work(self) -> None:
        while not self._is_over:
            while self._errands:
                errand, done = self._errands.popleft()
                done.put(_error_of(errand))
            with torch.inference_mode(), ExitStack() as stack:
                stack.enter_context(self.adapters.mixed())
                while not (self._errands or self._is_over):
                    self._turn()
        for answer in (*(row.answer for row in self._rows), *self._waiting):
            answer.tell(End("cancelled"))
        for _, done in self._errands:
            done.put(ModelError("was put away"))

    @torch.inference_mode()
    def _weigh(self, ids: Sequence[int], adapter: str, num_top: int) -> list[Piece]:
        device, found = self.model.device, []
        with self.adapters.mixed():
            self.adapters.assign([adapter] * len(ids))
            hidden = self.model.run(
                torch.tensor(ids, device=device), torch.arange(len(ids), device=device),
                flat_layout=FlatLayout.of((len(ids),)),
            )  # fmt: skip
        for start in range(0, len(ids) - 1, WEIGHED_AT_ONCE):
            end = min(start + WEIGHED_AT_ONCE, len(ids) - 1)
            logits = self.model.logits(hidden[start:end])
            targets = ids[start + 1 : end + 1]
            found += [_piece(t, own, num_top) for t, own in zip(targets, logits, strict=True)]
        return found

    def _turn(self) -> None:
        with self._changed:
            while not (self._waiting or self._rows or self._errands or self._is_over):
                self._changed.wait()
        try:
            self._drop_cancelled()
            if self._waiting and len(self._rows) < self._num_slots:
                self._admit()
            if self._rows:
                self._step()
        except Exception as error:
            for row in self._rows:
                row.answer.tell(error)
            self._rows.clear()
            self._kept = [("", [])] * self._num_slots

    def _drop_cancelled(self) -> None:
        for slot in reversed(range(len(self._rows))):
            if self._rows[slot].answer.is_cancelled:
                self._end(slot, "cancelled")

    def _admit(self) -> None:
        """Compute the next prompts into free slots, and take their first tokens."""
        first = len(self._rows)
        counts: list[int] = []
        while self._waiting and len(self._rows) < self._num_slots:
            if counts and sum(counts) + len(self._waiting[0].asked.ids) > FILL_TOKENS:
                break
            answer = self._waiting.popleft()
            adapter = answer.asked.adapter
            if answer.is_cancelled or (adapter and adapter not in self.adapters.names):
                answer.tell(End("cancelled"))
                continue
            row = _Row(answer, _generator(answer.asked.choosing.seed))
            slot = len(self._rows)
            row.num_cached = self._share(slot, answer.asked)
            self._rows.append(row)
            self._kept[slot] = (answer.asked.adapter, list(answer.asked.ids))
            self._guesses.learn(answer.asked.ids, row.num_cached)
            counts.append(len(answer.asked.ids) - row.num_cached)
        if counts:
            rests = [row.asked.ids[row.num_cached :] for row in self._rows[first:]]
            hidden = self._run(first, rests)
            ends = torch.tensor(counts, device=hidden.device).cumsum(0) - 1
            self._take(first, hidden[ends], [Guess() for _ in counts])

    def _share(self, slot: int, asked: Asked) -> int:
        """Copy into a slot what another one holds of a prompt's beginning; how many tokens."""
        best, source = 0, slot
        for other, (adapter, ids) in enumerate(self._kept):
            if adapter == asked.adapter and (length := _alike(ids, asked.ids)) > best:
                # What was computed of it: an active slot's last token is not yet.
                length = min(length, int(self._cache.lengths[other]))
                best, source = (length, other) if length > best else (best, source)
        best = min(best, len(asked.ids) - 1)  # one token is left over, to be asked what follows
        if best < LEAST_SHARED:
            best = 0
        elif source != slot:
            self._cache.copy(source, slot, best)
        self._cache.lengths[slot] = best
        return best

    def _run(self, first: int, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Final hidden states [T, H] of further tokens of the slots from `first` on."""
        starts = self._cache.lengths[first : first + len(tokens)].tolist()
        counts = [len(own) for own in tokens]
        if any(starts):
            self._cache.begin_step(counts, self.model.device, first)
        else:
            self._cache.begin_fill(first, counts)
        rows = self._rows[first : first + len(tokens)]
        self.adapters.assign(
            [row.asked.adapter for row, count in zip(rows, counts, strict=True)
             for _ in range(count)]
        )  # fmt: skip
        positions = [start + t for start, count in zip(starts, counts, strict=True)
                     for t in range(count)]  # fmt: skip
        device = self.model.device
        return self.model.run(
            torch.tensor([token for own in tokens for token in own], device=device),
            torch.tensor(positions, device=device), cache=self._cache,
        )  # fmt: skip

    def _step(self) -> None:
        """At least one more token for every row."""
        contexts = [row.context for row in self._rows]
        most = len(contexts) * (1 + self._most_ahead)
        totals = quick_counts(len(contexts), most, self.model.head.weight)
        guesses = self._guesses.ahead(contexts, totals, self._most_ahead)
        tokens = [(context[-1], *guess.ids)
                  for context, guess in zip(contexts, guesses, strict=True)]  # fmt: skip
        self._take(0, self._run(0, tokens), guesses)

    def _take(self, first: int, hidden: Tensor, guesses: Sequence[Guess]) -> None:
        """Tell what the model chose; end the rows whose answers have ended."""
        logits, start = self.model.logits(hidden), 0
        best = likeliest(logits).tolist()
        ended: list[tuple[int, str]] = []
        for slot, guess in enumerate(guesses, start=first):
            row, end = self._rows[slot], start + 1 + len(guess.ids)
            try:
                reason = self._settle(row, guess, logits[start:end], best[start:end])
            except (RuntimeError, ValueError) as error:  # of how this one's tokens are chosen
                row.answer.tell(error)
                reason = "cancelled"
            self._kept[slot] = (row.asked.adapter, [*row.asked.ids, *row.ids])
            self._cache.lengths[slot] = len(row.asked.ids) + len(row.ids) - 1
            if reason:
                ended.append((slot, reason))
            start = end
        for slot, reason in reversed(ended):
            self._end(slot, reason)

    def _settle(self, row: _Row, guess: Guess, logits: Tensor, best: Sequence[int]) -> str:
        """Tell tokens while guesses are right; why the answer has ended, if it has."""
        context, settled, reason = row.context, [], ""
        for ahead, own, token in zip((*guess.ids, None), logits, best, strict=True):
            if not row.asked.choosing.is_greedy:
                token = _choose(own, row)
            settled.append(token)
            if token in row.asked.stop_ids:
                reason = "stop"
                break
            row.ids.append(token)
            row.counts[token] += 1
            row.answer.tell(_piece(token, own, row.asked.num_logprobs))
            reason = "length" if row.is_full else ""
            if reason or token != ahead:
                break
        self._guesses.judge(guess, settled)
        self._guesses.learn([*context, *settled], len(context))
        return reason

    def _end(self, slot: int, reason: str) -> None:
        row, last = self._rows[slot], len(self._rows) - 1
        row.answer.tell(End(reason, row.num_cached))
        if slot != last:
            self._cache.swap(slot, last)
            self._rows[slot] = self._rows[last]
            self._kept[slot], self._kept[last] = self._kept[last], self._kept[slot]
        self._rows.pop()


def _choose(logits: Tensor, row: _Row) -> int:
    """A token by logits [V], as a row wants them chosen."""
    choosing, scores = row.asked.choosing, logits.float().clone()
    for token, bias in choosing.logit_bias.items():
        scores[token] += bias
    if row.counts and (choosing.frequency_penalty or choosing.presence_penalty):
        tokens = torch.tensor(list(row.counts), device=scores.device)
        counts = torch.tensor(list(row.counts.values()), device=scores.device)
        scores[tokens] -= choosing.frequency_penalty * counts + choosing.presence_penalty
    if allow := row.answer.allow:
        allowed = allow(row.ids)[: len(scores)].to(scores.device)
        scores[: len(allowed)].masked_fill_(~allowed, -torch.inf)
        scores[len(allowed) :] = -torch.inf
    if choosing.temperature == 0:
        return int(scores.argmax())
    shares = (scores / choosing.temperature).softmax(dim=-1).cpu()
    if choosing.top_p < 1:
        ordered, places = shares.sort(descending=True)
        # A token stays while those before it have less than top_p together.
        ordered[ordered.cumsum(0) - ordered >= choosing.top_p] = 0
        return int(places[ordered.multinomial(1, generator=row.generator)])
    return int(shares.multinomial(1, generator=row.generator))


def _piece(token: int, logits: Tensor, num_logprobs: int | None) -> Piece:
    if num_logprobs is None:
        return Piece(token)
    logprobs = logits.float().log_softmax(dim=-1)
    top = logprobs.topk(num_logprobs) if num_logprobs else None
    told = zip(top.indices.tolist(), top.values.tolist(), strict=True) if top else ()
    return Piece(token, float(logprobs[token]), tuple(told))


def _generator(seed: int | None) -> torch.Generator:
    """A row's own luck; without a seed another one for each request."""
    generator = torch.Generator()
    generator.manual_seed(seed) if seed is not None else generator.seed()
    return generator


def _alike(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens with which both begin."""
    return next(
        (t for t, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _error_of(errand: Callable[[], None]) -> Exception | None:
    try:
        errand()
    except (LuthierError, RuntimeError, OSError) as error:
        return error
    return None
