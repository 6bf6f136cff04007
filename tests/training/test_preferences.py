"""Preference objectives: their formulas, one prompt for both answers, micro-batches, references."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from luthier.errors import TrainingError
from luthier.models import LanguageModel, load_model, make_trainable, pack, trained_parameters
from luthier.recipe import DPO, IPO, KTO, ORPO, LoRA, Method, SimPO, Training
from luthier.tokens import IGNORED, Encoded, EncodedExample, EncodedPair, EncodedRated
from luthier.training import (
    Measured,
    StepDone,
    Surroundings,
    build_objective,
    measure,
    reference_key,
    reference_logprobs,
    train,
    with_references,
)
from luthier.training.objectives import Seen
from luthier.training.preferences import Pairs, Scored, _watched, dpo, ipo, orpo, simpo
from tiny import write_model

METHODS: list[Method] = [DPO(), IPO(), SimPO(), ORPO(), KTO(good_weight=1.5)]


def sequence(prompt: list[int], answer: list[int]) -> Encoded:
    ids = prompt + answer
    return Encoded("x", ids, [IGNORED] * len(prompt) + answer, ((len(prompt), len(ids)),))


def examples(method: Method, count: int = 5) -> list[EncodedExample]:
    """Pairs with prompts of growing length, or their answers rated."""
    made: list[EncodedExample] = []
    for i in range(count):
        prompt = [4 + (7 * i + 3 * j) % 90 for j in range(9 + 2 * i)]
        chosen = sequence(prompt, [10 + i, 20 + i, 30, 2])
        rejected = sequence(prompt, [50 + i, 60, 2] + [7 + i] * (i % 3))
        if isinstance(method, KTO):
            made += [EncodedRated(chosen, rejected, True), EncodedRated(rejected, chosen, False)]
        else:
            made.append(EncodedPair(chosen, rejected))
    return made


def tiny_model(folder: Path, dropout: float = 0.0) -> LanguageModel:
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    make_trainable(model, LoRA(rank=4, dropout=dropout), seed=0)
    return model


def shifted(model: LanguageModel) -> LanguageModel:
    """The model with an adapter that does something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in trained_parameters(model.network).items():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"))


def prepared(
    folder: Path, method: Method, dropout: float = 0.0
) -> tuple[LanguageModel, list[EncodedExample]]:
    """A model, and examples with references of it."""
    model, found = tiny_model(folder, dropout), examples(method)
    return model, with_references(found, reference_logprobs(model, found, 10_000))


def test_the_formulas() -> None:
    pairs = Pairs(*(torch.tensor([x]) for x in (-6.0, -9.0, 2.0, 3.0, -7.0, -8.0)))
    # log-ratios: chosen -6+7 = 1, rejected -9+8 = -1
    expected = {
        "dpo": -math.log(1 / (1 + math.exp(-0.1 * 2))),
        "ipo": (1 / 2 + 1 / 3 - 1 / (2 * 0.1)) ** 2,
        "simpo": -math.log(1 / (1 + math.exp(-(2 * (-3 + 3) - 1)))),
    }
    assert dpo(pairs, 0.1).losses.item() == pytest.approx(expected["dpo"])
    assert ipo(pairs, 0.1).losses.item() == pytest.approx(expected["ipo"])
    assert simpo(pairs, 2.0, 1.0).losses.item() == pytest.approx(expected["simpo"])
    pairs = replace(pairs, rejected=torch.tensor([-12.0]))  # means: -3 and -4
    odds = [math.exp(x) / (1 - math.exp(x)) for x in (-3.0, -4.0)]
    log_sigmoid = -math.log(1 + odds[1] / odds[0])
    assert orpo(pairs, 0.1).losses.item() == pytest.approx(3 - 0.1 * log_sigmoid)


@pytest.mark.parametrize("likelier", [0.0, 9.0])
def test_kto_is_its_formula(folder: Path, likelier: float) -> None:
    """1 - sigmoid(+-beta (log-ratio - z)), z the mean log-ratio of prompts with other answers."""
    method = KTO(beta=0.3, good_weight=1.5)
    model, found = tiny_model(folder), examples(method)
    rated = [example for example in found if isinstance(example, EncodedRated)]
    references = [two_encodings(model, example).detach() - likelier for example in rated]
    found = with_references(found, [(own.item(), other.item()) for own, other in references])
    shifted(model)
    parameters = list(trained_parameters(model.network).values())
    ratios = [
        two_encodings(model, example) - reference
        for example, reference in zip(rated, references, strict=True)
    ]
    mean = sum(other.item() for _, other in ratios) / len(rated)
    assert (mean > 0) == (likelier > 0), "a mean below 0 counts as 0"
    z = max(0.0, mean)
    terms = [
        1.5 / (1 + torch.exp(0.3 * (ratio - z))) if example.is_good
        else 1 / (1 + torch.exp(-0.3 * (ratio - z)))
        for example, (ratio, _) in zip(rated, ratios, strict=True)
    ]  # fmt: skip
    expected = torch.stack(terms).sum()
    objective = build_objective(method, share_prefixes=True)
    for budget in (1, 60, 10_000):
        measured = measure(model, objective, found, budget)
        assert measured.loss == pytest.approx(expected.item() / len(rated), rel=1e-5)
    rows = objective.look(model, found)
    assert rows.mean().item() == pytest.approx(mean, rel=1e-4)
    seen = Seen(found, rows, range(len(found)))
    total = objective.losses(model, objective.collate(found), found, seen).total
    for a, b in zip(
        torch.autograd.grad(total, parameters), torch.autograd.grad(expected, parameters),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1, b.abs().max().item()))


def test_orpo_is_finite_for_answers_that_are_certain() -> None:
    certain = torch.zeros(1, requires_grad=True)
    pairs = Pairs(certain, *(torch.tensor([x]) for x in (-5.0, 3.0, 3.0, 0.0, 0.0)))
    loss = orpo(pairs, 0.1).losses.sum()
    assert math.isfinite(loss.item())
    assert torch.autograd.grad(loss, certain)[0].isfinite().all()


def two_encodings(model: LanguageModel, pair: EncodedPair | EncodedRated) -> Tensor:
    """Log-likelihoods of both answers by transformers alone, each sequence on its own."""
    found = []
    for encoded in pair.sequences:
        batch = pack([encoded.input_ids], [encoded.labels])
        hidden = model.predicting_states(batch)
        logits = torch.log_softmax(model.base.get_output_embeddings()(hidden).float(), -1)
        found.append(logits.gather(1, batch.targets[:, None]).sum())
    return torch.stack(found)


@pytest.mark.parametrize("method", METHODS[:4], ids=lambda m: m.kind)
def test_one_prompt_for_both_answers_equals_two_encodings(folder: Path, method: Method) -> None:
    model, found = prepared(folder, method)
    shifted(model)
    parameters = list(trained_parameters(model.network).values())
    objective = build_objective(method, share_prefixes=True)
    batch = objective.collate(found)
    tokens_apart = sum(s.num_tokens for e in found for s in e.sequences)
    assert len(batch.input_ids) < tokens_apart, "prompts are shared"
    shared = objective.losses(model, batch, found, None).total
    apart = torch.zeros(())
    formulas: dict[str, Callable[[Pairs], Tensor]] = {
        "dpo": lambda p: dpo(p, 0.1).losses, "ipo": lambda p: ipo(p, 0.1).losses,
        "simpo": lambda p: simpo(p, 2.0, 1.0).losses, "orpo": lambda p: orpo(p, 0.1).losses,
    }  # fmt: skip
    for example in found:
        assert isinstance(example, EncodedPair)
        chosen, rejected = two_encodings(model, example)
        lengths = [torch.tensor([float(s.num_supervised)]) for s in example.sequences]
        references = [torch.tensor([x]) for x in example.reference or ()]
        pairs = Pairs(chosen[None], rejected[None], *lengths, *references)
        apart = apart + formulas[method.kind](pairs).sum()
    torch.testing.assert_close(shared, apart, rtol=1e-5, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(shared, parameters), torch.autograd.grad(apart, parameters),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1, b.abs().max().item()))


def trained(
    folder: Path,
    place: Path,
    method: Method,
    budget: int,
    *,
    dropout: float = 0.0,
    stop_after: int = 99,
    **settings: object,
) -> tuple[list[StepDone], LanguageModel]:
    model, found = prepared(folder, method, dropout)
    steps: list[StepDone] = []
    training = Training.model_validate({
        "epochs": 4, "batch_size": 4, "micro_batch_tokens": budget, "max_length": 100,
        "learning_rate": 0.01, "evaluate_every": 99, "checkpoint_every": 99, **settings,
    })  # fmt: skip
    surroundings = Surroundings(
        place, "r", None, lambda e: steps.append(e) if isinstance(e, StepDone) else None,
        lambda: len(steps) >= stop_after, memory=lambda: 0,
    )  # fmt: skip
    train(model, build_objective(method, share_prefixes=not dropout), found, training, surroundings)
    return steps, model


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.kind)
def test_micro_batches_change_nothing_and_training_prefers_the_chosen(
    folder: Path, tmp_path: Path, method: Method
) -> None:
    whole, model = trained(folder, tmp_path / "whole", method, 10_000)
    small, other = trained(folder, tmp_path / "small", method, 1)
    assert [s.loss for s in small] == pytest.approx([s.loss for s in whole], rel=1e-4)
    weights = trained_parameters(other.network)
    for name, weight in trained_parameters(model.network).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-2, atol=1e-4)
    assert whole[-1].loss < whole[0].loss
    assert whole[-1].watched["preference_accuracy"] == 1.0
    assert whole[-1].watched["reward_margin"] > 0


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.kind)
def test_a_resumed_training_with_dropout_is_bit_equal(
    folder: Path, tmp_path: Path, method: Method
) -> None:
    def stopped(place: str, stop_after: int = 99) -> tuple[list[float], LanguageModel]:
        steps, model = trained(
            folder, tmp_path / place, method, 60, dropout=0.3, stop_after=stop_after
        )
        return [step.loss for step in steps], model

    torch.manual_seed(1)
    whole, model = stopped("whole")
    torch.manual_seed(2)
    first, _ = stopped("cut", 2)
    torch.manual_seed(3)
    rest, resumed = stopped("cut")
    assert first + rest == whole
    weights = trained_parameters(resumed.network)
    for name, weight in trained_parameters(model.network).items():
        assert torch.equal(weight, weights[name]), name


def test_before_the_first_step_dpo_knows_no_preference(folder: Path, tmp_path: Path) -> None:
    steps, _ = trained(folder, tmp_path, DPO(), 10_000, max_steps=1)
    assert steps[0].loss == pytest.approx(math.log(2), rel=1e-5)
    assert steps[0].watched["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert steps[0].watched["chosen_logratio"] == pytest.approx(0, abs=1e-4)


def test_a_reference_is_what_the_model_at_the_start_says(folder: Path) -> None:
    model, found = prepared(folder, DPO())
    for example in found:
        assert isinstance(example, EncodedPair)
        expected = two_encodings(model, example).tolist()
        assert example.reference == pytest.approx(expected, rel=1e-4)
    one_by_one = reference_logprobs(model, found, budget=1)
    references = [e.reference for e in found if isinstance(e, EncodedPair)]
    assert one_by_one == [pytest.approx(reference, rel=1e-4) for reference in references]


def test_references_are_kept_by_start_and_sequences() -> None:
    found = examples(DPO())
    assert reference_key("a", found) == reference_key("a", examples(DPO()))
    assert len({reference_key(*x) for x in (("a", found), ("b", found), ("a", found[1:]))}) == 3


def test_kto_without_a_reference_says_so(folder: Path) -> None:
    method = KTO(good_weight=1.0)
    objective, model = build_objective(method, share_prefixes=True), tiny_model(folder)
    with pytest.raises(TrainingError, match="no log-likelihood under the model's start"):
        measure(model, objective, examples(method), 1000)


def test_measuring_is_the_mean_whatever_the_budget(folder: Path) -> None:
    model, found = prepared(folder, IPO())
    shifted(model)
    objective = build_objective(IPO(), share_prefixes=True)
    measured: Sequence[Measured] = [measure(model, objective, found, b) for b in (1, 60, 10_000)]
    assert [m.loss for m in measured] == pytest.approx([measured[0].loss] * 3, rel=1e-4)
    assert set(measured[0].watched) == {
        "reward_margin", "preference_accuracy", "chosen_logratio", "length_bias"
    }  # fmt: skip


def test_length_bias_is_measured_against_the_data() -> None:
    """The chosen answer is the longer of one pair in four; the model prefers three longer ones."""
    nothing = torch.zeros(4)
    chosen_length, rejected_length = torch.tensor([9.0, 2, 3, 4]), torch.tensor([5.0, 8, 7, 6])
    pairs = Pairs(nothing, nothing, chosen_length, rejected_length, nothing, nothing)
    scored = Scored(nothing, torch.tensor([1.0, 1, -1, -1]), nothing)
    assert _watched(pairs, scored)["length_bias"] / 4 == 3 / 4 - 1 / 4
