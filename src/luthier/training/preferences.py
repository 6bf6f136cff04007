"""Objectives that learn from preferred answers: DPO, IPO, SimPO, ORPO, KTO.

All are functions of log-likelihoods of whole answers. The prompt of a pair is computed once for
both answers, the head sees answer positions only, and what the model at the start thought of an
answer (`reference`) is computed once before training and handed in with the examples. A loss is a
sum over pairs (or rated answers); what is watched with it, too:

- reward_margin: how much more reward the chosen answer has than the rejected one
- preference_accuracy: 1 where that is above 0
- chosen_logratio: log-likelihood of the chosen answer less the start's, in nats
- length_bias: share of pairs whose longer answer has the higher reward, less the share whose longer
  answer is the chosen one
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from luthier.errors import TrainingError
from luthier.models.flat import FlatBatch
from luthier.models.loading import LanguageModel
from luthier.recipe import DPO, IPO, KTO, ORPO, Method, SimPO
from luthier.tokens import EncodedPair, EncodedRated
from luthier.training.objectives import (
    Losses,
    Objective,
    Seen,
    SupervisedObjective,
    pack_examples,
    pack_sequences,
)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Log-likelihoods of P pairs of answers in nats, all [P] float32."""

    chosen: Tensor
    rejected: Tensor
    chosen_length: Tensor
    """Tokens of the answer."""
    rejected_length: Tensor
    chosen_reference: Tensor
    """Under the model at the start; zeros where no reference is needed."""
    rejected_reference: Tensor


@dataclass(frozen=True, slots=True)
class Scored:
    """What a method makes of pairs: losses and rewards, all [P]."""

    losses: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


def dpo(pairs: Pairs, beta: float) -> Scored:
    """-log sigmoid(beta x (log-ratio of chosen - of rejected)); Rafailov et al. 2023, eq. 7."""
    chosen = beta * (pairs.chosen - pairs.chosen_reference)
    rejected = beta * (pairs.rejected - pairs.rejected_reference)
    return Scored(-logsigmoid(chosen - rejected), chosen, rejected)


def ipo(pairs: Pairs, beta: float) -> Scored:
    """(difference of log-ratios - 1 / (2 beta))^2; Azar et al. 2023, eq. 17.

    Log-ratios are means over an answer's tokens, as its authors advise for language models.
    """
    chosen = (pairs.chosen - pairs.chosen_reference) / pairs.chosen_length
    rejected = (pairs.rejected - pairs.rejected_reference) / pairs.rejected_length
    losses = (chosen - rejected - 1 / (2 * beta)).square()
    return Scored(losses, beta * chosen, beta * rejected)


def simpo(pairs: Pairs, beta: float, margin: float) -> Scored:
    """-log sigmoid(beta x difference of mean log-likelihoods - margin); Meng et al. 2024, eq. 6."""
    chosen = beta * pairs.chosen / pairs.chosen_length
    rejected = beta * pairs.rejected / pairs.rejected_length
    return Scored(-logsigmoid(chosen - rejected - margin), chosen, rejected)


def orpo(pairs: Pairs, odds_weight: float) -> Scored:
    """Mean loss of the chosen answer - weight x log sigmoid(log odds ratio); Hong et al. 2024."""
    chosen = pairs.chosen / pairs.chosen_length
    rejected = pairs.rejected / pairs.rejected_length
    log_odds = (chosen - _log_complement(chosen)) - (rejected - _log_complement(rejected))
    losses = -chosen - odds_weight * logsigmoid(log_odds)
    return Scored(losses, odds_weight * chosen, odds_weight * rejected)


def _log_complement(log_share: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0; a share that rounds to 1 is taken for the largest below it."""
    return torch.log(-torch.expm1(log_share.clamp(max=-1e-7)))


class PairObjective:
    """A method over pairs of answers."""

    looks: Literal["never"] = "never"
    watched = ("reward_margin", "preference_accuracy", "chosen_logratio", "length_bias")

    def __init__(self, score: Callable[[Pairs], Scored], *, share_prefixes: bool) -> None:
        self._score, self._share_prefixes = score, share_prefixes

    def count(self, examples: Sequence[EncodedPair]) -> float:
        """Pairs."""
        return len(examples)

    def collate(self, examples: Sequence[EncodedPair]) -> FlatBatch:
        """Chosen, rejected, chosen, rejected, ... with each prompt once."""
        return pack_examples(examples, share=self._share_prefixes)

    def rows_of(self, example: EncodedPair) -> int:
        """None."""
        return 0

    def look(self, model: LanguageModel, examples: Sequence[EncodedPair]) -> Tensor:
        """Nothing is shared."""
        raise NotImplementedError

    def losses(
        self,
        model: LanguageModel,
        batch: FlatBatch,
        examples: Sequence[EncodedPair],
        seen: Seen | None,
    ) -> Losses:
        """Sum over pairs."""
        chosen, rejected = model.answer_logprobs(batch).unflatten(0, (-1, 2)).unbind(1)
        references = torch.tensor(
            [example.reference or (0.0, 0.0) for example in examples], device=chosen.device
        )
        lengths = torch.tensor(
            [[s.num_supervised for s in example.sequences] for example in examples],
            device=chosen.device,
        )
        pairs = Pairs(chosen, rejected, *lengths.unbind(1), *references.unbind(1))
        scored = self._score(pairs)
        return Losses(scored.losses.sum(), _watched(pairs, scored), scored.losses.detach())


@torch.no_grad()
def _watched(pairs: Pairs, scored: Scored) -> dict[str, float]:
    margin = scored.chosen_reward - scored.rejected_reward
    longer = (pairs.chosen_length - pairs.rejected_length).sign()
    return {
        "reward_margin": margin.sum().item(),
        "preference_accuracy": (margin > 0).sum().item(),
        "chosen_logratio": (pairs.chosen - pairs.chosen_reference).sum().item(),
        "length_bias": ((margin * longer > 0).sum() - (longer > 0).sum()).item(),
    }


class RatedObjective:
    """KTO (Ethayarajh et al. 2024, eq. 8): answers marked good or bad, each on its own.

    The baseline z is the mean log-ratio of the step's prompts with other prompts' answers, at
    least 0; it belongs to the whole step, so that micro-batches do not change it.
    """

    looks: Literal["always"] = "always"
    watched = ("reward_margin", "preference_accuracy")

    def __init__(self, beta: float, good_weight: float, *, share_prefixes: bool) -> None:
        self._beta, self._good_weight = beta, good_weight
        self._share_prefixes = share_prefixes

    def count(self, examples: Sequence[EncodedRated]) -> float:
        """Rated answers."""
        return len(examples)

    def collate(self, examples: Sequence[EncodedRated]) -> FlatBatch:
        """The rated answers after their prompts."""
        return pack_sequences([e.answer for e in examples], share=self._share_prefixes)

    def rows_of(self, example: EncodedRated) -> int:
        """One."""
        return 1

    @torch.no_grad()
    def look(self, model: LanguageModel, examples: Sequence[EncodedRated]) -> Tensor:
        """The mismatched log-ratios [n, 1], whose mean over the step is z."""
        batch = pack_sequences([e.mismatched for e in examples], share=self._share_prefixes)
        logprobs = model.answer_logprobs(batch.to(model.device))
        references = [_reference(example)[1] for example in examples]
        return (logprobs - torch.tensor(references, device=logprobs.device))[:, None]

    def losses(
        self,
        model: LanguageModel,
        batch: FlatBatch,
        examples: Sequence[EncodedRated],
        seen: Seen | None,
    ) -> Losses:
        """Sum of weight x (1 - sigmoid(+-beta x (log-ratio - z))) over rated answers."""
        logprobs = model.answer_logprobs(batch)
        device = logprobs.device
        reference = torch.tensor([_reference(e)[0] for e in examples], device=device)
        signs = torch.tensor([1.0 if e.is_good else -1.0 for e in examples], device=device)
        weights = torch.tensor(
            [self._good_weight if e.is_good else 1.0 for e in examples], device=device
        )
        assert seen is not None, "it always looks"
        logratios, baseline = logprobs - reference, max(0.0, seen.rows.double().mean().item())
        losses = weights * (1 - torch.sigmoid(self._beta * signs * (logratios - baseline)))
        with torch.no_grad():
            rewards = signs * self._beta * (logratios - baseline)
            watched = {
                "reward_margin": rewards.sum().item(),
                "preference_accuracy": (rewards > 0).sum().item(),
            }
        return Losses(losses.sum(), watched, losses.detach())


def _reference(example: EncodedRated) -> tuple[float, float]:
    if example.reference is None:
        raise TrainingError(f"{example.example_id} has no log-likelihood under the model's start")
    return example.reference


def build_objective(method: Method, *, share_prefixes: bool) -> Objective:
    """The objective of a resolved recipe's method."""
    match method:
        case DPO(beta=beta):
            return PairObjective(lambda pairs: dpo(pairs, beta), share_prefixes=share_prefixes)
        case IPO(beta=beta):
            return PairObjective(lambda pairs: ipo(pairs, beta), share_prefixes=share_prefixes)
        case SimPO(beta=beta, margin=margin):
            return PairObjective(
                lambda pairs: simpo(pairs, beta, margin), share_prefixes=share_prefixes
            )
        case ORPO(odds_weight=weight):
            return PairObjective(lambda pairs: orpo(pairs, weight), share_prefixes=share_prefixes)
        case KTO(beta=beta, good_weight=good_weight):
            return RatedObjective(beta, float(good_weight), share_prefixes=share_prefixes)
        case _:
            return SupervisedObjective(share_prefixes=share_prefixes)


NEEDS_REFERENCE = frozenset({"dpo", "ipo", "kto"})
"""Methods that compare with the model at the start."""
