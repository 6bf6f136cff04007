"""A run says whether what the model could besides its task is kept, and decides by it."""

import json
from pathlib import Path

import pytest
import yaml
from journey import luthier, run_folder, write_rows, write_task

from luthier.pipeline import prepare, probe_general, tune
from luthier.recipe import read_recipe

ASKED = [
    {"question": f"number {i}, is it even?", "choices": ["no", "y"], "answer": "y"}
    for i in range(0, 80, 2)
] + [{"text": "One and one is two.", "subject": "prose"}]
EASY = {"data": {"train": "rows.jsonl", "test": "held.jsonl", "validation_share": 0}}


def taught(folder: Path, epochs: int, **evaluation: object) -> dict[str, object]:
    """The report's evaluation of a run that learns one answer to everything."""
    rows = [
        {"messages": [{"role": "user", "content": f"word {i}"},
                      {"role": "assistant", "content": "no"}]}
        for i in range(140)
    ]  # fmt: skip
    write_task(
        folder, name="only-no", **EASY, tuning="full",
        training={"epochs": epochs, "batch_size": 10, "learning_rate": 0.01,
                  "checkpoint_every": 1000},
        evaluation={"shots": [], "nearest": 0, "max_new_tokens": 4, "resamples": 200,
                    "metrics": ["loss"], "general": "general.jsonl", **evaluation},
    )  # fmt: skip
    write_rows(folder / "rows.jsonl", rows[:60])
    write_rows(folder / "held.jsonl", rows[60:])
    write_rows(folder / "general.jsonl", ASKED)
    done = luthier(folder, "train", "recipe.yaml")
    assert done.code == 0, done.error
    report = json.loads((run_folder(folder) / "report.json").read_text("utf-8"))
    said = " ".join(done.out.split())
    assert "General ability" in said
    found: dict[str, object] = report["evaluation"]
    return found


def test_a_model_that_unlearnt_is_not_promoted(tmp_path: Path) -> None:
    found = taught(tmp_path, 30)
    assert found["verdict"]["decision"] == "better"  # type: ignore[index]
    decision, general = found["decision"], found["general"]
    assert decision["kind"] == "keep iterating"  # type: ignore[index]
    assert "more than 5 points of general ability are lost" in decision["reasons"]  # type: ignore[index]
    assert "evaluation.general_margin" in decision["next_steps"][0]  # type: ignore[index]
    assert general["high"] < -0.05  # type: ignore[index]
    assert general["divergence"] > 0.1  # type: ignore[index]
    page = (run_folder(tmp_path) / "report.html").read_text("utf-8")
    assert "General ability is lost" in page
    asked = luthier(tmp_path, "general", "only-no")
    assert asked.code == 0, asked.error
    difference = f"{100 * general['difference']:+.1f} points"  # type: ignore[index]
    assert difference in " ".join(asked.out.split()), "asked again it is the same"
    write_rows(tmp_path / "new.jsonl", (
        {"messages": [{"role": "user", "content": f"word {i}"},
                      {"role": "assistant", "content": "no"}]}
        for i in range(200, 240)
    ))  # fmt: skip
    judged = luthier(tmp_path, "evaluate", "only-no", "--data", "new.jsonl")
    assert "Keep iterating" in judged.out, "what was lost is remembered where it is judged again"
    other = luthier(tmp_path, "general", "only-no", "--margin", "1")
    assert "General ability is kept" in " ".join(other.out.split())


def test_it_is_promoted_where_only_its_task_matters(tmp_path: Path) -> None:
    assert taught(tmp_path, 30, general_margin=1)["decision"]["kind"] == "promote"  # type: ignore[index]


def test_questions_that_are_learnt_are_told(tmp_path: Path) -> None:
    write_task(tmp_path, evaluation={"shots": [], "nearest": 0, "max_new_tokens": 4,
                                     "resamples": 200, "general": "general.jsonl"})  # fmt: skip
    asked = [{"question": f" Number  {i}", "choices": ["1", "2"], "answer": "1"} for i in range(60)]
    write_rows(tmp_path / "general.jsonl", asked)
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    report = json.loads((run_folder(tmp_path) / "report.json").read_text("utf-8"))
    learnt = report["data"]["training rows"]
    warned = f"{learnt} of the general questions are asked by training rows, too"
    assert warned in report["warnings"]


def test_the_start_is_asked_once_for_all_runs(tmp_path: Path) -> None:
    taught(tmp_path, 1)
    (kept,) = (tmp_path / "luthier-workspace" / "general").iterdir()
    before = kept.stat().st_mtime_ns
    content = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    content["training"]["epochs"] = 2
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    assert [p.stat().st_mtime_ns for p in kept.parent.iterdir()] == [before]


def test_without_a_file_the_built_in_questions_are_asked(tmp_path: Path) -> None:
    write_task(tmp_path, evaluation={"shots": [], "nearest": 0, "max_new_tokens": 4,
                                     "resamples": 200, "general": "built-in"})  # fmt: skip
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    general = json.loads((run_folder(tmp_path) / "report.json").read_text())["evaluation"][
        "general"
    ]
    assert general["before"]["n"] == 500
    assert [change["subject"] for change in general["picked"]] == ["words", "trivia", "commands"]
    assert [change["n"] for change in general["perplexity"]] == [25, 25]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.jsonl", "does not exist"),
        ("rows.jsonl", "rows.jsonl:1 has no text and no question"),
        ("built in", "does not exist"),
    ],
)
def test_a_file_without_questions_is_refused_before_anything_is_loaded(
    tmp_path: Path, given: str, said: str
) -> None:
    write_task(tmp_path, evaluation={"general": given})
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code != 0
    assert said in done.error
    assert not (tmp_path / "luthier-workspace" / "runs").exists()


def test_questions_that_changed_meanwhile_are_put_to_the_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(
        tmp_path, training={"epochs": 2, "batch_size": 4, "checkpoint_every": 1},
        evaluation={"shots": [], "nearest": 0, "max_new_tokens": 4, "resamples": 200,
                    "general": "general.jsonl"},
    )  # fmt: skip
    write_rows(tmp_path / "general.jsonl", ASKED)
    recipe = read_recipe(tmp_path / "recipe.yaml", [])
    broken_off = tune(prepare(recipe), is_interrupted=lambda: True)
    assert not broken_off.is_finished
    others = [{**row, "question": f"is {row.get('question')}"} for row in ASKED[:30]]
    write_rows(tmp_path / "general.jsonl", others)
    found = tune(prepare(recipe)).evaluation
    assert found is not None
    assert found.general is not None
    assert found.general.before.n == 30
    fresh = probe_general(broken_off.run)
    assert found.general.difference == pytest.approx(fresh.difference, abs=1e-6)


def test_questions_that_cannot_be_put_are_refused_before_training(tmp_path: Path) -> None:
    write_task(tmp_path, evaluation={"general": "general.jsonl"})
    wrong = {"question": "q", "choices": ["a", "b<|im_end|>"], "answer": "a"}
    write_rows(tmp_path / "general.jsonl", [*ASKED, wrong])
    done = luthier(tmp_path, "check", "recipe.yaml")
    assert done.code == 2
    assert f"general.jsonl:{len(ASKED) + 1}: messages[1] contains '<|im_end|>'" in done.error
