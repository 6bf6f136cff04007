"""Losses over whole steps: equal to their formulas, and the same however a step is cut."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from luthier.models.encoder_tuning import make_encoder_trainable, save_encoder
from luthier.models.encoders import Encoder, load_encoder
from luthier.models.narrow import NarrowEmbedding
from luthier.models.trained import TrainedWeights
from luthier.recipe import Full, Training
from luthier.tokens import EncodedText, EncodedTexts
from luthier.training import Surroundings, train
from luthier.training.batches import StepPlan
from luthier.training.classes import ClassObjective
from luthier.training.contrast import LabelContrast, PairContrast, ScoreContrast
from luthier.training.gradients import Gradients
from luthier.training.heads import fit_head, start_from_probe
from luthier.training.mining import with_hard_negatives
from luthier.training.objectives import Objective, measure, measure_parted
from luthier.training.ranks import Ranks
from tiny_encoders import some_texts, write_encoder

SCALE = 5.0


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    found = load_encoder(
        write_encoder(tmp_path), dtype=torch.float32, device=torch.device("cpu"), answers=3
    )
    make_encoder_trainable(found, Full(), 0)
    return found


def texts(count: int) -> list[EncodedText]:
    return [EncodedText(text.input_ids) for text in some_texts(count)[:count]]


def pairs() -> list[EncodedTexts]:
    """Pairs with one, no and two negatives; two with equal positives."""
    t = texts(12)
    groups = [(t[0], t[1], t[2]), (t[3], t[4]), (t[5], t[6], t[7], t[8]), (t[9], t[4])]
    return [EncodedTexts(f"row {i}", group) for i, group in enumerate(groups)]


def labelled() -> list[EncodedTexts]:
    classes = [0, 1, 0, 2, 1, 0, 0]
    return [
        EncodedTexts(f"row {i}", (text,), (number,))
        for i, (text, number) in enumerate(zip(texts(7), classes, strict=True))
    ]


def scored() -> list[EncodedTexts]:
    t = texts(10)
    scores = [0.1, 0.9, 0.5, 0.5, 0.3]
    return [
        EncodedTexts(f"row {i}", (t[2 * i], t[2 * i + 1]), value=score)
        for i, score in enumerate(scores)
    ]


def units(encoder: Encoder, wanted: Sequence[EncodedText]) -> Tensor:
    """Each text's vector by itself, at length 1."""
    found = torch.cat([encoder.vectors(encoder.pack([text])) for text in wanted])
    return functional.normalize(found, dim=-1)


def info_nce(encoder: Encoder, *, is_symmetric: bool = False) -> Tensor:
    """For each anchor the log-share of its positive among all texts that are not its own."""
    total = torch.zeros(())
    rows = pairs()
    for row in rows:
        anchor, positive = units(encoder, [row.texts[0]])[0], row.texts[1]
        others = [
            text for other in rows for text in other.texts[1:]
            if text != positive and text != row.texts[0]
        ]  # fmt: skip
        offered = units(encoder, [positive, *others])
        forth = -(SCALE * offered @ anchor).log_softmax(0)[0]
        if not is_symmetric:
            total = total + forth
            continue
        kin = [row.texts[0], *(o.texts[0] for o in rows if o.texts[0] not in row.texts)]
        back = -(SCALE * units(encoder, kin) @ offered[0]).log_softmax(0)[0]
        total = total + (forth + back) / 2
    return total


def supervised_contrast(encoder: Encoder) -> Tensor:
    rows = labelled()
    vectors = units(encoder, [row.texts[0] for row in rows])
    total = torch.zeros(())
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        shares = (SCALE * vectors[others] @ vectors[i]).log_softmax(0)
        kin = [k for k, j in enumerate(others) if rows[j].classes == row.classes]
        if kin:
            total = total - shares[kin].mean()
    return total


def cosent(encoder: Encoder) -> Tensor:
    rows = scored()
    alike = torch.stack(
        [(units(encoder, [r.texts[0]]) * units(encoder, [r.texts[1]])).sum() for r in rows]
    )
    terms = [torch.zeros(())]
    for i, j in permutations(range(len(rows)), 2):
        first, second = rows[i].value, rows[j].value
        assert first is not None
        assert second is not None
        if first < second:
            terms.append(SCALE * (alike[i] - alike[j]))
    return len(rows) * torch.stack(terms).logsumexp(0)


CASES: dict[str, tuple[Objective, list[EncodedTexts], Callable[[Encoder], Tensor]]] = {
    "pairs": (PairContrast(SCALE, is_symmetric=False, is_causal=False), pairs(), info_nce),
    "both ways": (
        PairContrast(SCALE, is_symmetric=True, is_causal=False), pairs(),
        lambda encoder: info_nce(encoder, is_symmetric=True),
    ),
    "labels": (LabelContrast(SCALE, is_causal=False), labelled(), supervised_contrast),
    "scores": (ScoreContrast(SCALE, is_causal=False), scored(), cosent),
}  # fmt: skip


def gradients_of(encoder: Encoder) -> dict[str, Tensor]:
    found = {
        name: p.grad.clone() for name, p in encoder.network.named_parameters() if p.grad is not None
    }
    encoder.network.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_losses_and_gradients_are_the_formulas_however_a_step_is_cut(
    case: str, budget: int, encoder: Encoder
) -> None:
    objective, examples, formula = CASES[case]
    expected = formula(encoder)
    expected.backward()
    plain = gradients_of(encoder)
    gradients = Gradients(encoder, objective, examples, TrainedWeights(encoder.network), Ranks())
    gradients.use(budget, "keep")
    tally, squeezed = gradients.of_step(range(len(examples)), 0)
    assert not squeezed
    assert tally.loss == pytest.approx(expected.item() / len(examples), rel=1e-4)
    for name, gradient in gradients_of(encoder).items():
        torch.testing.assert_close(
            gradient * len(examples), plain[name], rtol=1e-3, atol=1e-5, msg=name
        )
    measured = measure(encoder, objective, examples, budget)
    assert measured.loss == pytest.approx(tally.loss, rel=1e-4)


@pytest.mark.parametrize("budget", [1, 60, 10_000])
def test_a_step_may_hold_an_example_twice(budget: int, encoder: Encoder) -> None:
    objective, examples = LabelContrast(SCALE, is_causal=False), labelled()
    chosen = [0, 1, 2, 1, 3, 0, 0]
    twice = [examples[i] for i in chosen]
    gradients = Gradients(encoder, objective, twice, TrainedWeights(encoder.network), Ranks())
    gradients.use(10_000, "keep")
    whole, _ = gradients.of_step(range(len(twice)), 0)
    expected = gradients_of(encoder)
    gradients = Gradients(encoder, objective, examples, TrainedWeights(encoder.network), Ranks())
    gradients.use(budget, "keep")
    gradients.prepare_step(chosen)
    tally, _ = gradients.of_step(chosen, 0)
    assert tally.loss == pytest.approx(whole.loss, rel=1e-4)
    for name, gradient in gradients_of(encoder).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_many_validation_rows_are_told_apart_in_parts(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, examples = LabelContrast(SCALE, is_causal=False), labelled()
    assert measure_parted(encoder, objective, examples, 100) == measure(
        encoder, objective, examples, 100
    )
    monkeypatch.setattr("luthier.training.objectives.SEEN_TOGETHER", 2)
    order = list(range(len(examples)))
    random.Random(0).shuffle(order)
    parts = [order[i : i + 2] for i in range(0, len(order), 2)]
    each = [measure(encoder, objective, [examples[i] for i in p], 100).loss for p in parts]
    expected = sum(loss * len(p) for loss, p in zip(each, parts, strict=True)) / len(order)
    found = measure_parted(encoder, objective, examples, 100)
    assert found.loss == pytest.approx(expected, rel=1e-5)


def test_a_head_is_solved_with_weights_of_classes(encoder: Encoder) -> None:
    examples, weights = labelled(), (0.1, 1.0, 20.0)
    fit_head(encoder, examples, is_multi=False, budget=100)
    batch = encoder.pack([e.texts[0] for e in examples])
    with torch.no_grad():
        before = encoder.logits(batch).softmax(1).mean(0)
        fit_head(encoder, examples, is_multi=False, budget=100, weights=weights)
        after = encoder.logits(batch).softmax(1).mean(0)
    assert after[2] > before[2]
    assert after[0] < before[0]


def test_matryoshka_is_the_mean_over_the_lengths_of_vectors(encoder: Encoder) -> None:
    settings: dict[str, Any] = {"is_symmetric": False, "is_causal": False}
    together = PairContrast(SCALE, (8, 32), **settings)
    found = measure(encoder, together, pairs(), 10_000).loss
    alone = [measure(encoder, PairContrast(SCALE, (n,), **settings), pairs(), 10_000).loss
             for n in (8, 32)]  # fmt: skip
    assert found == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert alone[0] != pytest.approx(alone[1], rel=1e-3)


def test_class_weights_give_the_weighted_mean(encoder: Encoder) -> None:
    examples, weights = labelled(), [0.5, 2.0, 4.0]
    objective = ClassObjective("single", num_classes=3, weights=weights)
    logits = torch.cat([encoder.logits(encoder.pack([e.texts[0]])) for e in examples])
    labels = torch.tensor([e.classes[0] for e in examples])
    expected = functional.cross_entropy(logits, labels, torch.tensor(weights))
    for budget in (1, 60, 10_000):
        assert measure(encoder, objective, examples, budget).loss == pytest.approx(
            expected.item(), rel=1e-4
        )


def test_several_labels_and_numbers_have_the_usual_losses(encoder: Encoder) -> None:
    examples = [replace(e, classes=(0, 2) if i % 2 else ()) for i, e in enumerate(labelled())]
    logits = torch.cat([encoder.logits(encoder.pack([e.texts[0]])) for e in examples])
    targets = torch.tensor([[1.0, 0, 1] if i % 2 else [0.0, 0, 0] for i in range(7)])
    several = ClassObjective("multi", num_classes=3)
    expected = functional.binary_cross_entropy_with_logits(logits, targets)
    assert measure(encoder, several, examples, 60).loss == pytest.approx(expected.item(), rel=1e-4)
    numbered = [replace(e, value=float(i)) for i, e in enumerate(labelled())]
    numbers = ClassObjective("number", scale=(3.0, 2.0))
    wanted = (torch.arange(7) - 3.0) / 2.0
    assert measure(encoder, numbers, numbered, 60).loss == pytest.approx(
        (logits[:, 0] - wanted).square().mean().item(), rel=1e-4
    )


def test_classes_take_turns_two_rows_at_a_time() -> None:
    classes = (0,) * 20 + (1,) * 3 + (2,)
    plan = StepPlan((5,) * 24, 8, 50, 0, 1000, classes=classes)
    seen = [i for step in range(plan.num_steps) for i in plan.examples_of(step)]
    assert len(seen) == 24 * 50
    drawn = torch.bincount(torch.tensor([classes[i] for i in seen])).tolist()
    assert drawn[0] == pytest.approx(drawn[1], rel=0.1)
    assert drawn[1] == pytest.approx(2 * drawn[2], rel=0.1), "a class of one row has no pair"
    assert set(seen) == set(range(24))
    again = [i for step in range(plan.num_steps) for i in plan.examples_of(step)]
    assert seen == again


def test_equal_classes_are_each_seen_once_an_epoch() -> None:
    classes = tuple(i % 4 for i in range(32))
    plan = StepPlan((5,) * 32, 8, 1, 3, 1000, classes=classes)
    seen = [i for step in range(plan.num_steps) for i in plan.examples_of(step)]
    assert sorted(seen) == list(range(32))


def test_a_solved_head_is_scikit_learns_logistic_regression(encoder: Encoder) -> None:
    from sklearn.linear_model import LogisticRegression

    examples = labelled()
    fit_head(encoder, examples, is_multi=False, budget=100)
    with torch.no_grad():
        batch = encoder.pack([e.texts[0] for e in examples])
        pooled, logits = encoder.pooled(batch), encoder.logits(batch)
    known = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
    known.fit(pooled.numpy(), [e.classes[0] for e in examples])
    expected = torch.from_numpy(known.predict_proba(pooled.numpy())).float()
    torch.testing.assert_close(logits.softmax(1), expected, rtol=1e-2, atol=2e-3)


def test_a_head_begins_as_the_best_one_for_the_body_as_it_is(encoder: Encoder) -> None:
    examples = labelled()
    head = encoder.network.head
    assert isinstance(head, nn.Linear)
    head.requires_grad_(True)
    start_from_probe(encoder, examples, Ranks(), is_multi=False, budget=100, seed=0)
    begun = head.weight.detach().clone()
    assert head.weight.requires_grad
    fit_head(encoder, examples, is_multi=False, budget=100)
    torch.testing.assert_close(begun, head.weight.detach())


def test_a_head_begins_with_some_of_many_rows(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luthier.training.heads.PROBE_ROWS", 4)
    head = encoder.network.head
    assert isinstance(head, nn.Linear)
    found = []
    for seed in (0, 0, 1):
        start_from_probe(encoder, labelled(), Ranks(), is_multi=False, budget=100, seed=seed)
        found.append(head.weight.detach().clone())
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_equal_texts_of_a_step_are_no_negatives_of_each_other(encoder: Encoder) -> None:
    t = texts(3)
    twice = [EncodedTexts("a", (t[0], t[1])), EncodedTexts("b", (t[2], t[1]))]
    objective = PairContrast(SCALE, is_symmetric=False, is_causal=False)
    assert measure(encoder, objective, twice, 100).loss == pytest.approx(0, abs=1e-6)
    for one, other in combinations(pairs(), 2):
        assert one.example_id != other.example_id


def test_hard_negatives_are_near_but_do_not_belong(encoder: Encoder) -> None:
    t = texts(10)
    rows = [EncodedTexts(f"row {i}", (t[2 * i], t[2 * i + 1])) for i in range(5)]
    rows.append(EncodedTexts("row 5", (t[0], t[3])))  # an anchor that has two positives
    found = with_hard_negatives(encoder, rows, 2, 200)
    vectors = dict(zip(range(10), units(encoder, t).detach(), strict=True))
    place = {tuple(text.input_ids): i for i, text in enumerate(t)}
    for before, after in zip(rows, found, strict=True):
        assert after.texts[:2] == before.texts
        anchor, positive = (place[tuple(text.input_ids)] for text in before.texts)
        belonging = {
            place[tuple(r.texts[1].input_ids)] for r in rows if r.texts[0] == before.texts[0]
        }
        cosines = {i: float(vectors[anchor] @ vectors[i]) for i in (1, 3, 5, 7, 9)}
        limit = 0.95 * cosines[positive] if cosines[positive] > 0 else cosines[positive]
        fit = [i for i in cosines if i not in belonging and cosines[i] < limit]
        expected = sorted(fit, key=lambda i: -cosines[i])[:2]
        assert [place[tuple(text.input_ids)] for text in after.texts[2:]] == expected


def test_embeddings_of_ids_that_do_not_occur_are_left_out_without_a_difference(
    tmp_path: Path,
) -> None:
    start = write_encoder(tmp_path / "start")
    objective = ClassObjective("single", num_classes=3)
    training = Training.model_validate(
        {"epochs": 4, "batch_size": 3, "micro_batch_tokens": 60, "max_length": 64,
         "learning_rate": 1e-2, "evaluate_every": 2, "checkpoint_every": 99, "patience": 99}
    )  # fmt: skip
    learnt, unseen = labelled(), some_texts(12, seed=9)
    used = sorted({i for example in learnt for i in example.texts[0].input_ids})[:40]
    learnt = [e for e in learnt if set(e.texts[0].input_ids) <= set(used)] or labelled()[:3]
    used = sorted({i for example in learnt for i in example.texts[0].input_ids})
    found = {}
    for name, ids in (("whole", None), ("narrow", used)):
        encoder = load_encoder(start, dtype=torch.float32, device=torch.device("cpu"), answers=3)
        make_encoder_trainable(encoder, Full(), 0, ids)
        surroundings = Surroundings(
            tmp_path / name, "r", lambda e=encoder: measure(e, objective, learnt, 60),  # type: ignore[misc]
            lambda event: None, lambda: False, lambda: 0,
        )  # fmt: skip
        train(encoder, objective, learnt, training, surroundings)
        is_narrow = isinstance(encoder.base.get_input_embeddings(), NarrowEmbedding)
        assert is_narrow == (name == "narrow")
        with torch.no_grad():
            logits = encoder.logits(encoder.pack(unseen))
        save_encoder(encoder, tmp_path / f"{name}-saved", start, "abc")
        weights = load_file(tmp_path / f"{name}-saved" / "model.safetensors")
        found[name] = (logits, weights)
    torch.testing.assert_close(found["narrow"][0], found["whole"][0], rtol=1e-4, atol=1e-5)
    assert found["narrow"][1].keys() == found["whole"][1].keys()
    for key, value in found["whole"][1].items():
        torch.testing.assert_close(found["narrow"][1][key], value, rtol=1e-4, atol=1e-5)
