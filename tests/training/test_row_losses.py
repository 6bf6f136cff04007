"""What each row lost is said with every step, and is what it loses by itself."""

from pathlib import Path

import pytest
import torch
from test_exactness import examples
from torch.nn import functional

from luthier.models import LanguageModel, load_model, make_trainable
from luthier.recipe import DPO, IPO, KTO, ORPO, SFT, LoRA, Method, SimPO, Training
from luthier.tokens import EncodedPair, EncodedRated, EncodedTexts
from luthier.training import (
    ClassObjective,
    RowsLearnt,
    StepDone,
    Surroundings,
    TrainingEvent,
    build_objective,
    reference_logprobs,
    train,
    with_references,
)
from luthier.training.objectives import Seen, look_at
from tiny import write_model

METHODS: list[Method] = [SFT(), DPO(), IPO(), SimPO(), ORPO(), KTO(good_weight=1.5)]


def model_of(folder: Path) -> LanguageModel:
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    make_trainable(model, LoRA(rank=4), seed=0)
    return model


@pytest.mark.parametrize("budget", [40, 10_000])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
def test_the_losses_of_rows_are_theirs_however_a_step_is_cut(
    tmp_path: Path, method: Method, budget: int
) -> None:
    model = model_of(write_model(tmp_path / "model"))
    rows = examples(SFT() if method.kind == "sft" else DPO())
    if method.kind == "kto":
        rows = [
            EncodedRated(p.chosen, p.rejected, True) for p in rows if isinstance(p, EncodedPair)
        ]
    if method.kind != "sft":
        rows = [*with_references(rows, reference_logprobs(model, rows, 10_000))]
    objective = build_objective(method, share_prefixes=True)
    seen = (
        look_at(model, objective, rows, [([*range(len(rows))], True)])
        if method.kind == "kto"
        else None
    )
    alone = []
    for number, row in enumerate(rows):
        known = None if seen is None else Seen(rows, seen, [number])
        losses = objective.losses(model, objective.collate([row]), [row], known)
        alone.append(losses.total.item() / objective.count([row]))

    told: list[TrainingEvent] = []
    training = Training.model_validate({
        "epochs": 2, "batch_size": len(rows), "micro_batch_tokens": budget, "max_length": 100,
        "learning_rate": 0.01, "evaluate_every": 9, "checkpoint_every": 9, "patience": 9,
    })  # fmt: skip
    surroundings = Surroundings(tmp_path / "run", "r", None, told.append, lambda: False, lambda: 0)
    train(model, objective, rows, training, surroundings)
    learnt = [event for event in told if isinstance(event, RowsLearnt)]
    assert [event.step for event in learnt] == [1, 2]
    assert learnt[0].rows == (*range(len(rows)),)
    assert learnt[0].losses == pytest.approx(alone, rel=1e-4, abs=1e-6)
    for event, step in zip(learnt, [e for e in told if isinstance(e, StepDone)], strict=True):
        weights = [objective.count([rows[i]]) for i in event.rows]
        shares = [w * loss for w, loss in zip(weights, event.losses, strict=True)]
        assert sum(shares) / sum(weights) == pytest.approx(step.loss, rel=1e-5)


def test_labels_lose_their_own_surprise_whatever_their_class_weighs() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3)
    rows = [EncodedTexts(str(i), (), (i % 3,)) for i in range(6)]
    objective = ClassObjective("single", num_classes=3, weights=(1.0, 2.0, 5.0))
    losses = objective.judge(logits, rows)
    labels = torch.tensor([row.classes[0] for row in rows])
    assert losses.each is not None
    torch.testing.assert_close(losses.each, -functional.log_softmax(logits, 1)[range(6), labels])
    weighted = functional.cross_entropy(
        logits, labels, weight=torch.tensor([1.0, 2.0, 5.0]), reduction="sum"
    )
    torch.testing.assert_close(losses.total, weighted)
