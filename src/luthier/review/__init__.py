"""People's blind ballots become votes, votes become rates and rows. No torch, no files."""

from luthier.review.ballots import Ballot, ballots
from luthier.review.counting import Count, count_votes
from luthier.review.rows import corrected_rows, preferred_rows
from luthier.review.votes import CHOICES, Choice, Vote, read_vote

__all__ = [
    "CHOICES",
    "Ballot",
    "Choice",
    "Count",
    "Vote",
    "ballots",
    "corrected_rows",
    "count_votes",
    "preferred_rows",
    "read_vote",
]
