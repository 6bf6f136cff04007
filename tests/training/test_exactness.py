"""Training is exact on every architecture: micro-batches, accumulation, shared prompts, resume."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from luthier.models import LanguageModel, load_model, make_trainable, trained_parameters
from luthier.recipe import DPO, SFT, Full, LoRA, Method, Training, Tuning
from luthier.tokens import IGNORED, Encoded, EncodedExample, EncodedPair
from luthier.training import (
    StepDone,
    Surroundings,
    TrainingEvent,
    build_objective,
    reference_logprobs,
    train,
    with_references,
)
from tiny import FAMILIES, PADDED_FAMILIES, write_model

ARCHITECTURES = [*FAMILIES, *PADDED_FAMILIES]
TUNINGS: list[Tuning] = [LoRA(rank=4), Full()]


def sequence(start: int, prompt: int, answer: int) -> Encoded:
    ids = [4 + (start * 11 + 5 * j) % 200 for j in range(prompt + answer)]
    labels = [IGNORED] * prompt + ids[prompt:]
    return Encoded("x", ids, labels, ((prompt, len(ids)),))


def examples(method: Method) -> list[EncodedExample]:
    if method.kind == "sft":
        return [sequence(i // 3, 9 + i % 3, 3 + i) for i in range(8)]
    pairs: list[EncodedExample] = []
    for i in range(4):
        chosen = sequence(i, 10 + i, 4)
        ids = [*chosen.input_ids[: 10 + i], 7, 30 + i, 8]
        labels = [IGNORED] * (10 + i) + [7, 30 + i, 8]
        pairs.append(EncodedPair(chosen, Encoded("x", ids, labels, ((10 + i, 13 + i),))))
    return pairs


@dataclass
class Trained:
    """What a training left behind."""

    losses: list[float] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


def trained(
    folder: Path, place: Path, tuning: Tuning, method: Method, *, budget: int = 10_000,
    share: bool = True, stop_after: int = 99,
) -> Trained:  # fmt: skip
    model: LanguageModel = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    make_trainable(model, tuning, seed=0)
    rows = examples(method)
    if method.kind == "dpo":
        rows = with_references(rows, reference_logprobs(model, rows, 10_000))
    found = Trained()

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, StepDone):
            found.losses.append(event.loss)

    training = Training.model_validate({
        "epochs": 4, "batch_size": len(rows), "micro_batch_tokens": budget, "max_length": 100,
        "learning_rate": 2e-3, "evaluate_every": 99, "checkpoint_every": 1,
    })  # fmt: skip
    surroundings = Surroundings(
        place, "r", None, observe, lambda: len(found.losses) >= stop_after, memory=lambda: 0
    )
    train(model, build_objective(method, share_prefixes=share), rows, training, surroundings)
    found.weights = {n: p.detach() for n, p in trained_parameters(model.network).items()}
    return found


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda t: t.kind)
@pytest.mark.parametrize("method", [SFT(), DPO()], ids=lambda m: m.kind)
def test_neither_micro_batches_nor_sharing_change_the_losses(
    folder: Path, tmp_path: Path, tuning: Tuning, method: Method
) -> None:
    """8 x 1 == 1 x 8, and a prompt computed once == computed for every answer."""
    whole = trained(folder, tmp_path / "whole", tuning, method)
    for name, found in {
        "one by one": trained(folder, tmp_path / "one", tuning, method, budget=1),
        "in pieces": trained(folder, tmp_path / "pieces", tuning, method, budget=40),
        "apart": trained(folder, tmp_path / "apart", tuning, method, share=False),
    }.items():
        assert found.losses == pytest.approx(whole.losses, rel=2e-4), name
    assert whole.losses[-1] < whole.losses[0]


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda t: t.kind)
def test_a_resumed_training_is_bit_equal(folder: Path, tmp_path: Path, tuning: Tuning) -> None:
    whole = trained(folder, tmp_path / "whole", tuning, SFT())
    first = trained(folder, tmp_path / "cut", tuning, SFT(), stop_after=2)
    rest = trained(folder, tmp_path / "cut", tuning, SFT())
    assert first.losses + rest.losses == whole.losses
    for name, weight in whole.weights.items():
        assert torch.equal(weight, rest.weights[name]), name
