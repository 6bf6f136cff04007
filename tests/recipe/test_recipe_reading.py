"""A recipe says every problem at once, where it stands, and what was probably meant."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import ConfigError
from luthier.recipe import (
    Recipe,
    flatten,
    read_recipe,
    recipe_from,
    recipe_hash,
    to_yaml,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_recipe(write(folder, text), overrides)
    return str(caught.value)


MINIMAL = "model: org/name\ndata: rows.jsonl\n"


def test_a_model_and_a_data_file_are_enough(tmp_path: Path) -> None:
    read = read_recipe(write(tmp_path, MINIMAL))
    assert read.recipe.model.source == "org/name"
    assert read.recipe.data.train == tmp_path / "rows.jsonl"
    assert read.recipe.training.epochs == "auto"
    assert read.text == MINIMAL


def test_values_know_their_line_and_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "training:\n  epochs: 3\n  learning_rate: 1e-3\n")
    read = read_recipe(path, ["training.epochs=5", "evaluation.shots=[1, 2]"])
    assert read.recipe.training.epochs == 5
    assert read.recipe.training.learning_rate == 0.001
    assert read.recipe.evaluation.shots == (1, 2)
    assert read.origins["training.learning_rate"] == f"{path}:5"
    assert read.origins["training.epochs"] == "--set training.epochs=5"
    assert read.origins["data.train"] == f"{path}:2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "trainning:\n  epochs: 1\n", "recipe.yaml:3: there is no setting trainning"),
        (MINIMAL + "training:\n  epoch: 1\n", "recipe.yaml:4: there is no setting training.epoch; "
         "did you mean training.epochs?"),
        (MINIMAL + "learning_rate: 1\n", "did you mean training.learning_rate?"),
        (MINIMAL + "training:\n  epochs: 0\n", "training.epochs is 0; must be greater than 0"),
        (MINIMAL + "name: my run\n", "name is 'my run'; expected letters, digits, dots"),
        (MINIMAL + "training:\n  epochs: many\n", "expected a whole number, or 'auto'"),
        (MINIMAL + "training:\n  schedule: cosin\n", "expected 'cosine', 'linear' or 'constant'"),
        (MINIMAL + "training:\n  warmup_ratio: 2\n", "expected a value less than 1"),
        (MINIMAL + "tuning:\n  rank: yes\n", "YAML reads yes, no, on, off"),
        (MINIMAL + "evaluation:\n  metrics: [exact, blue]\n", "evaluation.metrics is 'blue'"),
        (MINIMAL + "evaluation:\n  metrics: [regex]\n", "needs evaluation.pattern"),
        (MINIMAL + "evaluation:\n  metrics: [exact]\n  primary: json\n", "not among the metrics"),
        (MINIMAL + "evaluation:\n  metrics: []\n", "metrics names none; name one"),
        (MINIMAL + "evaluation:\n  shots: [4, 4]\n", "shots names the same number twice"),
        (MINIMAL + "evaluation:\n  max_new_tokens: 0\n", "must be greater than 0, or auto"),
        (MINIMAL + "runtime:\n  threads: 0\n", "must be greater than 0, or auto"),
        (MINIMAL + "tuning:\n  targets: []\n", "tuning.targets is []; names no layer"),
        (MINIMAL + "tuning:\n  targets: {}\n", "tuning.targets is {}; names no layer"),
        (MINIMAL + "data:\n  train: x\n", "data is set twice"),
        (MINIMAL + "  x: [\n", "is no valid YAML"),
        ("model: x\n", "data is missing; add it"),
        ("- a\n- b\n", "holds no settings"),
        ("", "is empty"),
        (MINIMAL + "name: !!python/object:os.system x\n", "is no valid YAML"),
        (MINIMAL + "name: a b\n", "name is 'a b'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(tmp_path: Path, text: str, message: str) -> None:
    assert message in problems(tmp_path, text)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path, MINIMAL + "training:\n  epochs: -1\n  schedule: x\ntuning:\n  rnk: 3\n"
    )
    assert "3 settings are wrong" in found
    for line in (":4:", ":5:", ":7:"):
        assert line in found


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "expected section.field=value"),
        ("training.epoch=2", "did you mean training.epochs?"),
        ("training.epochs=[", "no valid YAML"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    assert message in problems(tmp_path, MINIMAL, override)


def test_a_file_that_is_no_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        read_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: gr\xfcn")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_recipe(tmp_path / "latin.yaml")


def test_paths_are_relative_to_the_recipe_and_overrides_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write(Path("inside"), "model: model\ndata:\n  train: a.jsonl\n  test: b.jsonl\n")
    recipe = read_recipe(path, ["data.test=c.jsonl"]).recipe
    assert recipe.model.source == "inside/model"
    assert recipe.data.train == Path("inside/a.jsonl")
    assert recipe.data.test == Path("c.jsonl")
    assert recipe.runtime.workspace == Path("luthier-workspace")
    assert read_recipe(path, ["model=org/name"]).recipe.model.source == "org/name"


def test_python_shares_schema_and_errors() -> None:
    read = recipe_from({"model": "m", "data": "d.jsonl", "training": {"epochs": 2}})
    assert read.recipe.training.epochs == 2
    assert read.origins["training.epochs"] == "Python"
    with pytest.raises(ConfigError, match=r"did you mean training\.epochs\?"):
        recipe_from({"model": "m", "data": "d.jsonl", "training": {"epoch": 2}})


def test_the_hash_covers_what_changes_results_and_nothing_else() -> None:
    base: dict[str, Any] = {"model": "m", "data": "d.jsonl"}
    known = recipe_hash(recipe_from(base).recipe)
    same = {**base, "name": "x", "runtime": {"workspace": "w", "cache": "c", "threads": 3}}
    assert recipe_hash(recipe_from(same).recipe) == known
    for other in ({"training": {"seed": 1}}, {"tuning": {"rank": 8}}, {"evaluation": {"limit": 5}}):
        assert recipe_hash(recipe_from({**base, **other}).recipe) != known


@given(
    st.fixed_dictionaries(
        {
            "model": st.text("abc/.-", min_size=1, max_size=9).map(lambda s: f"wheel:{s}"),
            "data": st.just({"train": "/rows.jsonl"}),
            "name": st.text("abc-_.", max_size=8),
            "training": st.fixed_dictionaries(
                {},
                optional={
                    "epochs": st.integers(1, 50) | st.just("auto"),
                    "learning_rate": st.floats(1e-9, 1) | st.just("auto"),
                    "seed": st.integers(0, 2**31 - 1),
                },
            ),
            "evaluation": st.fixed_dictionaries(
                {},
                optional={
                    "pattern": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10),
                    "shots": st.lists(st.integers(1, 9), max_size=3, unique=True),
                },
            ),
        }
    )
)
@settings(max_examples=60, deadline=None)
def test_yaml_gives_the_recipe_back(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    recipe = Recipe.model_validate(content)
    path = write(tmp_path_factory.mktemp("recipe"), to_yaml(recipe))
    again = read_recipe(path).recipe
    assert again == recipe
    assert flatten(again) == flatten(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training:\n  optimizer: adamw-8bit\n", "fsdp needs training.optimizer: adamw"),
        ("tuning:\n  quantize: nf4\n", "fsdp needs tuning.quantize: none"),
    ],
)
def test_what_cannot_be_spread_over_processes_is_refused(
    tmp_path: Path, change: str, message: str
) -> None:
    place = tmp_path / "recipe.yaml"
    place.write_text(MINIMAL + "runtime:\n  sharding: fsdp\n" + change)
    with pytest.raises(ConfigError, match=message):
        read_recipe(place)


@pytest.mark.parametrize(
    ("grader", "said"),
    [
        ("type: string_check, name: x, input: a, reference: b, operation: near",
         r":5: evaluation\.graders\.0\.operation is 'near'; expected 'eq'"),
        ("type: string_check, name: x, input: a, operation: eq",
         r":5: evaluation\.graders\.0\.reference is missing"),
        ("type: python, name: x, source: a, sauce: b",
         r":5: there is no setting evaluation\.graders\.0\.sauce"),
        ("type: magic, name: x", r":5: evaluation\.graders\.0\.type is not one of string_check"),
        ("name: x", r":5: evaluation\.graders\.0\.type is not one of string_check"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_grader_is_said_where_it_stands(
    tmp_path: Path, grader: str, said: str
) -> None:
    place = tmp_path / "recipe.yaml"
    place.write_text(f"model: m\ndata: d.jsonl\nevaluation:\n  graders:\n    - {{{grader}}}\n")
    with pytest.raises(ConfigError, match=said):
        read_recipe(place)
