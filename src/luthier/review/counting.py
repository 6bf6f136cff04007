"""Votes are counted: who is preferred how often, and how far people agree."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from luthier.evaluation import (
    Agreement,
    Duel,
    Estimate,
    Outcome,
    PairedVote,
    Preferred,
    Strength,
    agreement,
    krippendorff_alpha,
    prediction_powered_mean,
    preferred,
    strengths,
)
from luthier.review.votes import Vote

WORDS: Mapping[float, str] = {1.0: "first", 0.0: "second", 0.5: "tie"}


@dataclass(frozen=True, slots=True)
class Count:
    """What people said of two systems."""

    first: str
    second: str
    preferred: Preferred
    """Of rows, each with what most of its raters said."""
    num_both_bad: int
    """Votes that found neither good."""
    num_raters: int
    alpha: float | None
    """Krippendorff's, over rows with several raters."""
    with_judge: Agreement | None = None
    """People, then the judge, on rows that both decided about."""
    corrected: Estimate | None = None
    """Rate at which people would prefer the first, by their votes and the judge's together."""


def count_votes(
    votes: Sequence[Vote], confidence: float, duels: Sequence[Duel] = (), ids: Sequence[str] = ()
) -> tuple[list[Count], list[Strength]]:
    """Of each pair of systems; and, where there are more than two, how strong each is.

    `duels` are a judge's verdicts on the same pairs, in the order of the rows' `ids`.
    """
    by_pair: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in _last(votes):
        by_pair[vote.first, vote.second].append(vote)
    judged = {(duel.candidate, duel.rival): duel for duel in duels}
    counts = [_count(pair, own, confidence, judged.get(pair), ids) for pair, own in by_pair.items()]
    systems = {name for pair in by_pair for name in pair}
    if len(systems) < 3:
        return counts, []
    pairings = [
        PairedVote(vote.row, vote.first, vote.second, vote.outcome)
        for own in by_pair.values()
        for vote in own
    ]
    return counts, strengths(pairings, confidence)


def _last(votes: Sequence[Vote]) -> list[Vote]:
    """Each person's last word on a row and pair."""
    return list({(v.row, v.first, v.second, v.rater): v for v in votes}.values())


def _count(
    pair: tuple[str, str],
    votes: Sequence[Vote],
    confidence: float,
    duel: Duel | None,
    ids: Sequence[str],
) -> Count:
    by_row: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_row[vote.row].append(vote)
    outcomes = {row: _majority(own) for row, own in by_row.items()}
    shared, corrected = None, None
    if duel is not None:
        said = dict(zip(ids, duel.outcomes, strict=True))
        both = [
            (human, judge)
            for row, human in outcomes.items()
            if human is not None and (judge := said.get(row)) is not None
        ]
        if both:
            people, model = [a for a, _ in both], [b for _, b in both]
            shared = agreement(people, model, WORDS)
            others = [o for row, o in said.items() if row not in outcomes and o is not None]
            corrected = prediction_powered_mean(people, model, others, confidence)
    return Count(
        *pair,
        preferred(list(outcomes.values()), confidence),
        sum(vote.choice == "both bad" for vote in votes),
        len({vote.rater for vote in votes}),
        krippendorff_alpha([vote.choice for vote in own] for own in by_row.values()),
        shared,
        corrected,
    )


def _majority(votes: Sequence[Vote]) -> Outcome:
    """What most say of a row: the side with more votes, or a tie."""
    balance = sum((vote.outcome or 0.0) - 0.5 for vote in votes)
    return 1.0 if balance > 0 else 0.0 if balance < 0 else 0.5
