"""Guesses ahead change the number of steps, and no answer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from luthier.models import Generated, LanguageModel, Sampling, generate, load_model
from luthier.models.guessing import LOOKS_BACK, MOST_AHEAD, Guess, Guesses
from tiny import FAMILIES, write_model

PROMPTS = [
    [9, 8, 7, 6, 5, 20, 21, 22, 20, 21],
    [9, 8, 7, 6, 5, 20, 21, 22, 23],
    [9, 8, 7, 6, 5, 30, 31],
    [9, 8, 7, 6, 5, 40, 41, 42, 43, 44, 45],
    [9, 8, 7, 6, 5, 50],
    [9, 8, 7, 6, 5, 50, 50],
]


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = write_model(tmp_path_factory.mktemp(request.param), request.param, seed=3)
    return load_model(folder, dtype=torch.float32, device=torch.device("cpu"))


def counted(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the rows of each step, in the order they are run."""
    rows: list[int] = []
    run = model.run

    def counting(ids: torch.Tensor, *given: object, **more: object) -> torch.Tensor:
        rows.append(len(ids))
        return run(ids, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "run", counting)
    return rows


@pytest.mark.parametrize("num_slots", [1, 2, 5, None])
def test_answers_are_the_same_in_fewer_steps(
    model: LanguageModel, num_slots: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = counted(model, monkeypatch)

    def answers(most_ahead: int, stop_ids: set[int]) -> list[Generated]:
        return generate(
            model, PROMPTS, max_new_tokens=40, stop_ids=stop_ids, num_slots=num_slots,
            most_ahead=most_ahead,
        )  # fmt: skip

    free = answers(0, set())
    num_steps = len(rows)
    assert answers(MOST_AHEAD, set()) == free
    # All at once take as many steps as the one with the least luck.
    assert len(rows) - num_steps < num_steps * (0.8 if num_slots in (1, 2) else 1)
    stop_ids = {free[0].ids[20], free[3].ids[11]}
    assert answers(MOST_AHEAD, stop_ids) == answers(0, stop_ids)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_drawn_answers_are_the_same(model: LanguageModel, temperature: float) -> None:
    found = [
        generate(
            model, PROMPTS, max_new_tokens=24, stop_ids={77}, most_ahead=most_ahead,
            sampling=Sampling(temperature, seed=3), num_slots=4,
        )
        for most_ahead in (0, 1, MOST_AHEAD)
    ]  # fmt: skip
    assert found[0] == found[1] == found[2]


def test_the_prompt_foretells_an_answer_that_repeats_it() -> None:
    guesses = Guesses()
    guesses.learn([5, 6, 7, 8, 9, 10, 11])
    (guess,) = guesses.ahead([[4, 6, 7]], range(1, 20))
    assert guess.ids[:4] == [8, 9, 10, 11]
    assert guess.chances == sorted(guess.chances, reverse=True)


def test_the_longest_context_counts_then_the_most_frequent_token() -> None:
    guesses = Guesses()
    guesses.learn([1, 2, 3, 50, 9, 2, 3, 60, 9, 2, 3, 60])
    (guess,) = guesses.ahead([[1, 2, 3]], [2])
    assert guess.ids == [50]
    (guess,) = guesses.ahead([[7, 2, 3]], [2])
    assert guess.ids == [60]
    (guess,) = guesses.ahead([[7, 7, 7]], [2])
    assert guess.ids == [0], "nothing known: filled up"
    assert not guess.chances


def test_guesses_that_fail_lose_their_row() -> None:
    guesses = Guesses()
    for first in range(100, 140):
        guesses.learn([first, first + 100, first + 200])
        (guess,) = guesses.ahead([[first, first + 100]], [1, 2])
        guesses.judge(guess, [7])
        before = guess
    assert before.chances[0] < 0.05
    contexts = [[1, 2]] + [[token] for token in range(300, 331)]
    guesses.learn([1, 2, 3])
    assert guesses.ahead(contexts, [32, 33])[0].ids == []
    guesses.learn([1, 2, 3, 1, 2, 3, 1, 2, 3])
    assert guesses.ahead(contexts, [32, 33])[0].ids == [3]


def test_unknown_ends_are_not_judged() -> None:
    guesses = Guesses()
    guess = Guess([4, 5, 6], [(1, 1, 4), (2, 1, 4), (3, 1, 4)], [0.5, 0.4, 0.3])
    guesses.judge(guess, [4, 9])
    assert guesses._right == {(1, 1, 4): 1}
    assert guesses._wrong == {(2, 1, 4): 1}


def test_old_contexts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luthier.models.guessing.MOST_KNOWN", 10)
    guesses = Guesses()
    for start in range(0, 1000, 10):
        guesses.learn(list(range(start, start + 10)))
    assert len(guesses._young) + len(guesses._old) < 80
    (guess,) = guesses.ahead([[993, 994, 995]], [2])
    assert guess.ids == [996]


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=30), min_size=1, max_size=6),
    st.integers(0, MOST_AHEAD), st.integers(0, 20),
)  # fmt: skip
def test_guesses_fill_a_permitted_number_of_rows(
    texts: list[list[int]], most: int, more: int
) -> None:
    guesses = Guesses()
    for text in texts:
        guesses.learn(text)
    totals = sorted({len(texts), len(texts) + more, len(texts) + 2 * more})
    found = guesses.ahead([text[-LOOKS_BACK:] for text in texts], totals, most)
    assert sum(1 + len(guess.ids) for guess in found) in totals
    for guess in found:
        assert len(guess.chances) == len(guess.grounds) <= min(most, len(guess.ids))
        assert all(0 < chance <= 1 for chance in guess.chances)
