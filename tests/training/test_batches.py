"""Every example is used exactly once an epoch, however steps and micro-batches are cut."""

from hypothesis import given
from hypothesis import strategies as st

from luthier.training.batches import StepPlan, cut_by_tokens

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60).map(tuple)


@given(LENGTHS, st.integers(1, 20), st.integers(1, 3), st.integers(0, 5), st.integers(1, 300))
def test_each_epoch_uses_every_example_once(
    lengths: tuple[int, ...], batch_size: int, epochs: int, seed: int, budget: int
) -> None:
    plan = StepPlan(lengths, batch_size, epochs, seed, budget)
    steps = [plan.examples_of(step) for step in range(plan.num_steps)]
    for epoch in range(epochs):
        start = epoch * plan.steps_per_epoch
        used = [i for step in steps[start : start + plan.steps_per_epoch] for i in step]
        assert sorted(used) == list(range(len(lengths)))
    assert all(0 < len(step) <= batch_size for step in steps)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5), st.integers(1, 300))
def test_the_largest_micro_batch_comes_first(
    lengths: tuple[int, ...], batch_size: int, seed: int, budget: int
) -> None:
    plan = StepPlan(lengths, batch_size, 2, seed, budget)
    largest = [
        max(
            sum(lengths[i] for i in group)
            for group in cut_by_tokens(plan.examples_of(step), lengths, budget)
        )
        for step in range(plan.num_steps)
    ]
    assert largest[0] == max(largest[: plan.steps_per_epoch])


def test_the_order_changes_with_seed_and_epoch_and_nothing_else() -> None:
    lengths = (7,) * 100
    plan = StepPlan(lengths, 10, 2, 1, 30)
    assert plan.examples_of(3) == StepPlan(lengths, 10, 2, 1, 30).examples_of(3)
    assert plan.examples_of(3) != StepPlan(lengths, 10, 2, 2, 30).examples_of(3)
    assert plan.examples_of(3) != plan.examples_of(13)
    assert StepPlan(lengths, 10, 2, 1, 30, max_steps=5).num_steps == 5


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 400))
def test_micro_batches_hold_every_example_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    groups = cut_by_tokens(range(len(lengths)), lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or sum(lengths[i] for i in group) <= budget
    sizes = [sum(lengths[i] for i in group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 3))
def test_a_given_order_is_kept_in_every_epoch(
    lengths: list[int], batch_size: int, epochs: int
) -> None:
    plan = StepPlan(tuple(lengths), batch_size, epochs, 0, 200, order="given")
    taken = [i for step in range(plan.num_steps) for i in plan.examples_of(step)]
    assert taken == [*range(len(lengths))] * epochs
