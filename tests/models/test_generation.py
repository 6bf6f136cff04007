"""Greedy answers equal transformers' own, whatever the slots, the order and the shared prefix."""

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from luthier.models import (
    LanguageModel,
    Sampling,
    generate,
    load_model,
    make_trainable,
    pack,
    trained_parameters,
)
from luthier.models.attention import FLAT
from luthier.recipe import LoRA
from tiny import FAMILIES, PADDED_FAMILIES, write_model

PROMPTS = [
    [9, 8, 7, 6, 5, 20],
    [9, 8, 7, 6, 5, 20, 21, 22, 23],
    [9, 8, 7, 6, 5, 30, 31],
    [9, 8, 7, 6, 5, 40, 41, 42, 43, 44, 45],
    [9, 8, 7, 6, 5, 50],
]


@pytest.fixture(scope="module", params=[*FAMILIES, *PADDED_FAMILIES])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = write_model(tmp_path_factory.mktemp(request.param), request.param, seed=3)
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


def reference(model: LanguageModel, prompt: list[int], stop_ids: set[int], most: int) -> list[int]:
    """The greedy answer, one whole forward per token, by transformers' own attention."""
    if not model.padded_because:
        model.base.set_attn_implementation("eager")
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + most:
            token = int(model.base(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in stop_ids:
                break
            ids.append(token)
    if not model.padded_because:
        model.base.set_attn_implementation(FLAT)
    return ids[len(prompt) :]


@pytest.mark.parametrize("num_slots", [1, 2, 5, None])
def test_answers_equal_a_plain_greedy_loop(model: LanguageModel, num_slots: int | None) -> None:
    free = [reference(model, prompt, set(), 12) for prompt in PROMPTS]
    stop_ids = {free[0][3], free[3][7]}  # some answers end early, some run into the limit
    expected = [reference(model, prompt, stop_ids, 12) for prompt in PROMPTS]
    answers = generate(model, PROMPTS, max_new_tokens=12, stop_ids=stop_ids, num_slots=num_slots)
    assert [answer.ids for answer in answers] == expected
    assert [answer.stopped for answer in answers] == [len(ids) < 12 for ids in expected]


def test_prompts_without_a_common_beginning_work(model: LanguageModel) -> None:
    prompts = [[5], [6, 7], [8, 9, 10]]
    answers = generate(model, prompts, max_new_tokens=4, stop_ids=(), num_slots=2)
    assert [a.ids for a in answers] == [reference(model, p, set(), 4) for p in prompts]


def test_equal_prompts_get_equal_answers(model: LanguageModel) -> None:
    answers = generate(model, [[5, 6, 7]] * 3, max_new_tokens=4, stop_ids=(), num_slots=2)
    assert answers[0].ids == answers[1].ids == answers[2].ids


def test_progress_counts_up_to_all(model: LanguageModel) -> None:
    seen: list[int] = []
    generate(model, PROMPTS, max_new_tokens=3, stop_ids=(), num_slots=2, observe=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(PROMPTS)


def test_an_adapter_that_changed_since_the_last_answer_counts(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path), dtype=torch.float32, device=torch.device("cpu"))
    before = [a.ids for a in generate(model, PROMPTS, max_new_tokens=4, stop_ids=())]
    make_trainable(model, LoRA.model_validate({"rank": 4}), seed=0)
    assert [a.ids for a in generate(model, PROMPTS, max_new_tokens=4, stop_ids=())] == before
    batch = pack([PROMPTS[1]], [PROMPTS[1]])
    losses = []
    optimizer = torch.optim.AdamW(trained_parameters(model.network).values(), 0.5, fused=True)
    for _ in range(2):
        with torch.no_grad():
            losses.append(model.loss(batch).total.item())
        model.loss(batch).total.backward()
        optimizer.step()
    assert abs(losses[0] - losses[1]) > 0.1
    after = [a.ids for a in generate(model, PROMPTS, max_new_tokens=4, stop_ids=())]
    assert after != before


def test_no_prompt_gives_no_answer(model: LanguageModel, tmp_path: Path) -> None:
    assert generate(model, [], max_new_tokens=3, stop_ids=()) == []


def drawn(model: LanguageModel, **more: Any) -> list[list[int]]:
    given = {"max_new_tokens": 8, "stop_ids": (), "sampling": Sampling(1.0, 7), **more}
    return [answer.ids for answer in generate(model, PROMPTS, **given)]


def test_drawn_answers_depend_on_the_seed_and_not_on_neighbours(model: LanguageModel) -> None:
    first = drawn(model)
    assert drawn(model, num_slots=1) == first
    assert drawn(model, num_slots=2) == first
    assert drawn(model, sampling=Sampling(1.0, 8)) != first
    assert len({tuple(ids) for ids in first}) > 1


def test_a_temperature_near_zero_is_greedy(model: LanguageModel) -> None:
    greedy = [a.ids for a in generate(model, PROMPTS, max_new_tokens=8, stop_ids=())]
    assert drawn(model, sampling=Sampling(1e-5)) == greedy


def test_tokens_are_drawn_by_their_probabilities(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path), dtype=torch.float32, device=torch.device("cpu"))
    prompts = [PROMPTS[0]] * 600
    answers = generate(model, prompts, max_new_tokens=1, stop_ids=(), sampling=Sampling(2.0))
    counts = torch.bincount(torch.tensor([a.ids[0] for a in answers]), minlength=259).double()
    model.base.set_attn_implementation("eager")
    with torch.no_grad():
        logits = model.base(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].double()
    expected = 600 * (logits / 2.0).softmax(0)
    seen = expected >= 5
    rest = torch.stack((counts[~seen].sum(), expected[~seen].sum()))
    found = torch.cat((counts[seen], rest[:1])).numpy()
    wanted = torch.cat((expected[seen], rest[1:])).numpy()
    assert stats.chisquare(found, wanted).pvalue > 1e-3
