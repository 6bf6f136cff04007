"""Tokens guessed ahead, so that one step of the model may settle several of them.

A step on few rows takes as long as reading the weights does; rows beside them are nearly free. So
the next tokens of each answer are guessed from what followed the same tokens before, in prompts
and answers so far, and the model is asked about all of them at once. What it chooses behind right
guesses counts; what lies behind the first wrong one is forgotten. Answers are the same as without.

Sources: Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding"; Saxena
2023, "Prompt Lookup Decoding". Here guesses come from all prompts and answers of a call, and the
least likely ones are left out where a row costs more than it promises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

LOOKS_BACK = 3
"""Tokens that a guess is made from, at most."""

MOST_AHEAD = 8
"""Tokens guessed for one answer at once."""

STEP_IN_ROWS = 48
"""What a step costs beside its rows, in rows.

Measured with 135M parameters in float32 on two cores: 53 ms, and 1.1 ms for each of 80 rows."""

LEAST_CHANCE = 0.02
"""Guesses less likely than this are not made."""

MOST_KNOWN = 2**18
"""Contexts in each of two generations; the elder is forgotten when the younger one is full."""

Grounds = tuple[int, int, int]
"""What a guess rests on: tokens looked back at, times they were seen, share of it in quarters."""


@dataclass(slots=True)
class _Followers:
    """Which tokens followed a context, how often."""

    counts: dict[int, int]
    total: int
    best: int


@dataclass(slots=True)
class Guess:
    """Tokens that may come next in one answer, and what each was guessed from."""

    ids: list[int] = field(default_factory=list)
    grounds: list[Grounds] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    """That a token and all before it are right."""


class Guesses:
    """What followed which tokens so far, and how often guesses made of it were right."""

    def __init__(self) -> None:
        self._young: dict[tuple[int, ...], _Followers] = {}
        self._old: dict[tuple[int, ...], _Followers] = {}
        self._right: dict[Grounds, int] = {}
        self._wrong: dict[Grounds, int] = {}

    def learn(self, ids: Sequence[int], start: int = 0) -> None:
        """Remember what follows what, for the tokens from `start` on."""
        for end in range(max(start, 1), len(ids)):
            for length in range(1, min(LOOKS_BACK, end) + 1):
                self._count(tuple(ids[end - length : end]), ids[end])
        if len(self._young) > MOST_KNOWN:
            self._old, self._young = self._young, {}

    def judge(self, guess: Guess, settled: Sequence[int]) -> None:
        """Learn how good the grounds of a guess were: these tokens came, as far as is known."""
        for grounds, guessed, token in zip(guess.grounds, guess.ids, settled, strict=False):
            tally = self._right if guessed == token else self._wrong
            tally[grounds] = tally.get(grounds, 0) + 1

    def ahead(
        self, contexts: Sequence[Sequence[int]], totals: Sequence[int], most: int = MOST_AHEAD
    ) -> list[Guess]:
        """A guess after each context: as many rows, with the contexts, as pay best.

        `totals`: numbers of rows that a step may have, ascending, the first at least as many as
        there are contexts. Where too little can be guessed, zeros fill up.
        """
        guesses = [self._chain(context, most) for context in contexts]
        chances = sorted((c for guess in guesses for c in guess.chances), reverse=True)
        promised, best, worth = float(len(contexts)), totals[0], 0.0
        used = 0
        for total in totals:
            room = total - len(contexts)
            promised += sum(chances[used:room])
            used = max(used, min(room, len(chances)))
            if promised / (STEP_IN_ROWS + total) > worth:
                best, worth = total, promised / (STEP_IN_ROWS + total)
        _cut(guesses, best - len(contexts))
        return guesses

    def _count(self, context: tuple[int, ...], token: int) -> None:
        known = self._young.get(context)
        if known is None:
            self._young[context] = _Followers({token: 1}, 1, token)
            return
        count = known.counts[token] = known.counts.get(token, 0) + 1
        known.total += 1
        if count >= known.counts[known.best]:
            known.best = token

    def _chain(self, context: Sequence[int], most: int) -> Guess:
        """The likeliest token, then the likeliest after it, and so on."""
        guess, chance = Guess(), 1.0
        seen = list(context[-LOOKS_BACK:])
        while len(guess.ids) < most and (found := self._next(seen)):
            token, grounds, own = found
            chance *= own
            if chance < LEAST_CHANCE:
                break
            guess.ids.append(token)
            guess.grounds.append(grounds)
            guess.chances.append(chance)
            seen = [*seen, token][-LOOKS_BACK:]
        return guess

    def _next(self, context: Sequence[int]) -> tuple[int, Grounds, float] | None:
        """The likeliest token after the longest context that was seen before, and its chance."""
        for start in range(len(context)):
            key = tuple(context[start:])
            known = self._young.get(key) or self._old.get(key)
            if known:
                count = known.counts[known.best]
                grounds = (len(key), min(known.total, 4), 4 * count // known.total)
                # How often such grounds held, beginning with two guesses' worth of their own word.
                right, wrong = self._right.get(grounds, 0), self._wrong.get(grounds, 0)
                prior = (count + 0.5) / (known.total + 1)
                return known.best, grounds, (right + 2 * prior) / (right + wrong + 2)
        return None


def _cut(guesses: Sequence[Guess], room: int) -> None:
    """Keep the likeliest tokens for which there is room; fill the shortest where it is more."""
    order = sorted(
        (-chance, depth, row)
        for row, guess in enumerate(guesses)
        for depth, chance in enumerate(guess.chances)
    )
    kept = [0] * len(guesses)
    for _, _, row in order[:room]:
        kept[row] += 1
    for guess, length in zip(guesses, kept, strict=True):
        del guess.ids[length:], guess.grounds[length:], guess.chances[length:]
    for _ in range(room - len(order)):
        min(guesses, key=lambda guess: len(guess.ids)).ids.append(0)
