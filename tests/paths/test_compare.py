"""Finished runs are put side by side on the rows they share; nobody is asked again."""

import json
from pathlib import Path
from typing import Any

import pytest
from journey import luthier, rows, write_rows, write_task

import luthier as package
from luthier.errors import ConfigError
from luthier.pipeline import compare_runs, find_run
from tiny_encoders import write_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of a model that writes, with other learning rates, and one on other rows."""
    folder = tmp_path_factory.mktemp("compare")
    write_task(folder, name="quick")
    assert luthier(folder, "train", "recipe.yaml").code == 0
    slow = luthier(folder, "train", "recipe.yaml", "--set", "name=slow",
                   "--set", "training.learning_rate=1e-6", "--set", "tuning.rank=2")  # fmt: skip
    assert slow.code == 0, slow.error
    write_rows(folder / "rows.jsonl", rows(30, start=500))
    other = luthier(folder, "train", "recipe.yaml", "--set", "name=elsewhere")
    assert other.code == 0, other.error
    return folder


def test_runs_are_compared_where_they_differ(folder: Path) -> None:
    done = luthier(folder, "compare", "quick", "slow", "--json")
    assert done.code == 0, done.error
    found = json.loads(done.out)
    assert [run["name"] for run in found["runs"]] == ["quick", "slow"]
    (first, *_) = found["comparisons"]
    assert (first["candidate"], first["baseline"]) == ("quick", "slow")
    settings = {line["what"]: line["values"] for line in found["differing"]}
    assert settings["training.learning_rate"] == ["0.01", "1e-06"]
    assert settings["tuning.rank"] == ["4", "2"]
    assert "model.source" not in settings
    assert not any(name.startswith("data:") for name in settings)
    for name in ("quick", "slow"):
        report = json.loads((find_run(folder / "luthier-workspace", name).path("report.json"))
                            .read_text("utf-8"))  # fmt: skip
        (own,) = [s for s in report["evaluation"]["systems"] if s["kind"] == "tuned"]
        (shown,) = [run for run in found["runs"] if run["name"] == name]
        for metric, estimate in own["estimates"].items():
            assert shown["estimates"][metric]["value"] == pytest.approx(estimate["value"])
    page = (folder / found["report"]).read_text("utf-8")
    assert "What the runs differ in" in page
    assert page.count("key-series-") >= 2
    assert 'class="series series-2 held-out"' in page


def test_words_say_which_run_is_better(folder: Path) -> None:
    done = luthier(folder, "compare", "quick", "slow", "--primary", "loss")
    assert done.code == 0, done.error
    said = " ".join(done.out.split())
    assert "training.learning_rate" in said
    assert "quick's " in said
    assert "report: " in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quick"], "expected two different runs or more"),
        (["quick", "quick"], "expected two different runs or more"),
        (["quick", "elsewhere"], "have no held-out row in common"),
        (["quick", "nobody"], "there is no run 'nobody'"),
        (["quick", "slow", "--primary", "beauty"], "expected a metric that all runs have: "),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    folder: Path, arguments: list[str], said: str
) -> None:
    done = luthier(folder, "compare", *arguments)
    assert done.code == 2
    assert said in " ".join(done.error.split())


def test_runs_that_are_not_finished_are_refused(folder: Path) -> None:
    workspace = folder / "luthier-workspace"
    run = find_run(workspace, "slow")
    report = run.path("report.json")
    hidden = report.rename(report.with_suffix(".away"))
    try:
        with pytest.raises(ConfigError, match="has no report yet"):
            compare_runs([find_run(workspace, "quick"), run])
    finally:
        hidden.rename(report)


def test_the_board_has_every_system_of_the_same_rows(folder: Path) -> None:
    boards = json.loads(luthier(folder, "leaderboard", "--json").out)
    assert [board["num_rows"] for board in boards] == [4, 3]
    board = boards[0]
    names = [(entry["system"], entry["source"].split("-")[2]) for entry in board["systems"]]
    assert ("fine-tuned", "quick") in names
    assert ("fine-tuned", "slow") in names
    assert len([name for name, _ in names if name == "prompt alone"]) == 1, "asked twice, once here"
    values = [entry["value"] for entry in board["systems"]]
    assert values == sorted(values, reverse=True)
    by_loss = json.loads(luthier(folder, "leaderboard", "--json", "--metric", "loss").out)[0]
    assert by_loss["systems"][0]["source"].split("-")[2] == "quick"
    words = luthier(folder, "leaderboard").out
    assert "4 rows of rows.jsonl" in words
    wrong = luthier(folder, "leaderboard", "--metric", "beauty")
    assert wrong.code == 2
    assert "expected " in wrong.error


def test_numbers_over_all_rows_are_counted_again(tmp_path: Path) -> None:
    """Classifiers whose test rows overlap in part: macro F1 is that of the shared rows."""
    write_encoder(tmp_path / "model", sentence="mean_tokens")
    things = {"light": "lamp {} on", "music": "song {} now"}
    words = ("one", "two", "red", "green", "what", "today")
    some = [{"text": text.format(f"{a} {b}"), "label": label}
            for a in words for b in words for label, text in things.items()]  # fmt: skip
    write_rows(tmp_path / "train.jsonl", some[:40])
    for name, held in (("one", some[40:66]), ("two", some[48:72])):
        write_rows(tmp_path / f"{name}.jsonl", held)
        data: dict[str, Any] = {
            "train": tmp_path / "train.jsonl", "test": tmp_path / f"{name}.jsonl",
        }  # fmt: skip
        package.tune(
            model=str(tmp_path / "model"), data=data, method="classify", name=name,
            training={"epochs": 2, "batch_size": 8, "learning_rate": 3e-3},
            evaluation={"resamples": 200},
            runtime={"dtype": "float32", "threads": 1, "workspace": tmp_path / "workspace",
                     "cache": tmp_path / "cache"},
        )  # fmt: skip
    workspace = tmp_path / "workspace"
    found = compare_runs([find_run(workspace, "one"), find_run(workspace, "two")], "macro_f1")
    assert len(found.result.examples) == 18
    assert "8 of 26 held-out rows were not answered by all runs" in found.report.read_text("utf-8")
    from sklearn.metrics import f1_score

    for system in found.result.systems:
        truth = [example.labels[0] for example in found.result.examples]  # type: ignore[union-attr]
        given = [prediction.labels[0] for prediction in system.predictions]
        wanted = f1_score(truth, given, average="macro")
        assert system.estimates["macro_f1"].value == pytest.approx(wanted)
    assert any(line.what == "data: fingerprint" for line in found.differing)
