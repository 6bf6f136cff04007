"""Every "auto" is decided once, with its reason, and what was given stays."""

from dataclasses import replace
from typing import Any

import pytest

from luthier.errors import ConfigError
from luthier.recipe import RULES, Facts, Recipe, Resolved, flatten, num_steps, resolve

FACTS = Facts(
    num_train=1814, num_validation=201, train_tokens=135_763, validation_tokens=15_000,
    longest_row=106, longest_answer=48, hidden_size=576, model_type="llama", context_length=8192,
    suggested_metrics=("exact", "loss"), suggestion_reason="answers are short", has_cuda=False,
    has_fast_bfloat16=True, num_cores=2, cache="/cache", supervised_tokens=40_000,
    num_good=1814, adapter_size=305_280, narrowest_layer=192, model_size=134_515_008,
    can_compile=True,
)  # fmt: skip


def resolved(facts: Facts = FACTS, **sections: Any) -> Resolved:
    recipe = Recipe.model_validate({"model": "m", "data": "d.jsonl", **sections})
    return resolve(recipe, {}, facts)


def value(path: str, facts: Facts = FACTS, **sections: Any) -> Any:
    return flatten(resolved(facts, **sections).recipe)[path]


def test_nothing_is_left_to_decide_and_every_decision_has_a_reason() -> None:
    found = resolved()
    values = flatten(found.recipe)
    for path in set(RULES) & set(values):
        assert values[path] != "auto"
        assert found.origins[path].startswith("auto: ")


def test_what_is_given_stays() -> None:
    found = resolve(
        Recipe.model_validate({"model": "m", "data": "d", "training": {"epochs": 7}}),
        {"training.epochs": "recipe.yaml:4"}, FACTS,
    )  # fmt: skip
    assert found.recipe.training.epochs == 7
    assert found.origins["training.epochs"] == "recipe.yaml:4"


@pytest.mark.parametrize(
    ("hidden", "family", "alpha", "expected"),
    [
        # evaluation-and-serving E5: Llama-3.2-1B 4.9e-4, Llama-3.1-8B 2.9e-4, Qwen3-8B 4.7e-4
        (2048, "llama", 32, 4.9e-4),
        (4096, "llama", 32, 2.9e-4),
        (4096, "qwen3", 32, 4.7e-4),
        (576, "llama", 32, 1.3e-3),
        (4096, "llama", 64, 1.4e-4),
        (1000, "unheard-of", 32, 5e-4),
    ],
)
def test_the_learning_rate_follows_the_published_rule(
    hidden: int, family: str, alpha: float, expected: float
) -> None:
    facts = replace(FACTS, hidden_size=hidden, model_type=family)
    assert value("training.learning_rate", facts, tuning={"alpha": alpha}) == expected


@pytest.mark.parametrize(
    ("rows", "epochs", "batch_size"), [(50, 4, 8), (800, 4, 8), (1814, 2, 16), (50_000, 1, 16)]
)
def test_few_rows_are_seen_more_often(rows: int, epochs: int, batch_size: int) -> None:
    facts = replace(FACTS, num_train=rows)
    assert value("training.epochs", facts) == epochs
    assert value("training.batch_size", facts) == batch_size


def test_the_device_and_its_precision() -> None:
    assert value("runtime.dtype") == "bfloat16"
    assert value("runtime.dtype", replace(FACTS, has_fast_bfloat16=False)) == "float32"
    assert value("runtime.device", replace(FACTS, has_cuda=True)) == "cuda"
    assert value("training.micro_batch_tokens", replace(FACTS, has_cuda=True)) == 16384


def test_lengths_fit_the_rows_and_never_exceed_the_model() -> None:
    assert value("training.max_length") == 128
    assert value("training.max_length", replace(FACTS, longest_row=9000)) == 8192
    assert value("evaluation.max_new_tokens") == 64


def test_validation_never_costs_more_than_a_tenth() -> None:
    for validation_tokens in (10, 15_000, 10_000_000):
        facts = replace(FACTS, validation_tokens=validation_tokens)
        recipe = resolved(facts).recipe
        every = recipe.training.evaluate_every
        steps = num_steps(recipe, facts.num_train)
        assert isinstance(every, int)
        assert 1 <= every <= steps


def test_steps_are_counted_as_the_loop_counts_them() -> None:
    recipe = resolved(training={"epochs": 3, "batch_size": 16}).recipe
    assert num_steps(recipe, 1814) == 3 * 114
    assert num_steps(resolved(training={"max_steps": 5}).recipe, 1814) == 5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "never"),
        ({"has_cuda": True}, "never"),  # too short
        ({"has_cuda": True, "train_tokens": 10**9}, "always"),
        ({"has_cuda": True, "train_tokens": 10**9, "can_compile": False}, "never"),
        ({"train_tokens": 10**9}, "never"),  # a CPU
    ],
)
def test_compiling_must_be_earned_back(changes: dict[str, Any], expected: str) -> None:
    assert value("runtime.compile", replace(FACTS, **changes)) == expected


def test_the_rank_holds_the_data_and_fits_every_layer() -> None:
    assert value("tuning.rank") == 16
    much = replace(FACTS, supervised_tokens=10**8)
    assert value("tuning.rank", much) == 128
    assert value("tuning.rank", replace(much, narrowest_layer=24)) == 24
    assert value("tuning.rank", replace(FACTS, narrowest_layer=8)) == 8


@pytest.mark.parametrize(
    ("hidden", "layers", "expected"),
    [(384, 6, 8192), (768, 12, 2048), (1024, 24, 2048), (32, 2, 16384), (384, 0, 2048)],
)
def test_as_many_tokens_of_texts_are_computed_at_once_as_memory_takes(
    hidden: int, layers: int, expected: int
) -> None:
    facts = replace(FACTS, hidden_size=hidden, num_layers=layers, label_kind="single")
    assert value("training.micro_batch_tokens", facts, method="classify") == expected
    assert value("training.micro_batch_tokens", facts) == 2048


def test_models_made_for_vectors_are_moved_less_and_texts_are_waited_for_longer() -> None:
    facts = replace(FACTS, hidden_size=384, num_train=10_886)
    assert value("training.learning_rate", facts, method="classify") == 3e-4
    assert value("training.learning_rate", facts, method="embed") == 3e-4
    made = replace(facts, has_vectors=True)
    assert value("training.learning_rate", made, method="classify") == 3e-4
    assert value("training.learning_rate", made, method="embed") == 5e-5
    assert value("training.epochs", facts, method="classify") == 5
    assert value("training.patience", facts, method="classify") == 5
    assert value("training.patience", facts) == 3


FEW = replace(FACTS, label_kind="single", label_counts=(10, 12))


@pytest.mark.parametrize(
    ("method", "sections", "stages", "head"),
    [
        ({}, {}, "two", "pooled"),
        ({"head": "own"}, {}, "one", "own"),
        ({}, {"tuning": "head"}, "one", "own"),
        ({"stages": "one"}, {}, "one", "own"),
        ({"labels": "number"}, {}, "one", "pooled"),
        ({"labels": "multi"}, {}, "one", "own"),
    ],
)
def test_stages_and_head_fit_each_other(
    method: dict[str, str], sections: dict[str, Any], stages: str, head: str
) -> None:
    found = flatten(resolved(FEW, method={"kind": "classify", **method}, **sections).recipe)
    assert (found["method.stages"], found["method.head"]) == (stages, head)


@pytest.mark.parametrize(
    ("method", "sections", "said"),
    [
        ({"stages": "two", "head": "own"}, {}, "stages: two needs head: pooled"),
        ({"stages": "two", "labels": "multi"}, {}, "stages: two needs one label a row"),
        ({"head": "own", "labels": "number"}, {}, "labels: number needs head: pooled"),
        ({"stages": "two"}, {"tuning": "head"}, "tuning: head needs method.stages: one"),
    ],
)
def test_what_cannot_go_together_is_refused(
    method: dict[str, str], sections: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        resolved(method={"kind": "classify", **method}, **sections)


def test_what_the_rows_make_impossible_is_said_with_them() -> None:
    facts = replace(FACTS, label_kind="multi", label_counts=(10, 12))
    with pytest.raises(ConfigError, match=r"labels: is multi by these rows, and stages: two needs"):
        resolved(facts, method={"kind": "classify", "stages": "two"})
