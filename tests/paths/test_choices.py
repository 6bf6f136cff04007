"""Rows with choices, and labelled rows, for models that write: the likeliest choice is judged."""

import json
from pathlib import Path

import pytest
from journey import luthier, run_folder, write_rows, write_task

from luthier.errors import ConfigError
from luthier.pipeline import try_systems
from luthier.recipe import trial_from
from tiny import write_model

CPU = {"device": "cpu", "threads": 1}


def report(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run_folder(folder) / "report.json").read_text("utf-8"))
    return found


def test_a_model_that_writes_learns_labels(tmp_path: Path) -> None:
    write_task(tmp_path, training={"epochs": 8, "batch_size": 4, "learning_rate": 0.02,
                                   "checkpoint_every": 1000}, tuning="full",
               evaluation={"shots": [2], "max_new_tokens": 8, "resamples": 200})  # fmt: skip
    kinds = {"red": "colour", "blue": "colour", "one": "number", "two": "number"}
    write_rows(
        tmp_path / "rows.jsonl",
        ({"text": f"{word} {i}", "label": kinds[word]} for i in range(25) for word in kinds),
    )
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    assert "classify learns labels" in done.out + done.error
    evaluation = report(tmp_path)["evaluation"]
    assert evaluation["primary"] == "choice"  # type: ignore[index]
    systems = {s["name"]: s for s in evaluation["systems"]}  # type: ignore[index]
    tuned = systems["fine-tuned"]
    assert {p["picked"] for p in tuned["predictions"]} == {"colour", "number"}
    assert tuned["estimates"]["choice"]["value"] == 1
    assert systems["prompt alone"]["estimates"]["choice"]["value"] < 1
    told = (run_folder(tmp_path) / "instructions.txt").read_text("utf-8")
    assert told == "Answer with one of these: colour, number."
    # Other rows are asked with the labels it learnt, whichever of them they have.
    write_rows(
        tmp_path / "one.jsonl", ({"text": f"red {i}", "label": "colour"} for i in range(30, 40))
    )
    for extra in ((), ("--set", "evaluation.limit=10")):  # a run alone, and as a system of a trial
        judged = luthier(tmp_path, "evaluate", "rows", "--data", "one.jsonl", *extra)
        assert judged.code == 0, judged.error
    (trial,) = (tmp_path / "luthier-workspace" / "trials").iterdir()
    assert "Answer with one of these: colour, number." in (trial / "report.html").read_text("utf-8")
    probed = luthier(tmp_path, "probe", "rows", "--data", "one.jsonl", "--swap", "red=two")
    assert probed.code == 0, probed.error
    assert "10" in probed.out


def test_a_label_that_no_training_row_has_is_answered_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    known = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(8)]
    write_rows(tmp_path / "known.jsonl", known)
    others = [{"text": f"other {i}", "label": "c"} for i in range(8)]
    rows = [{**row, "text": f"more {row['text']}"} for row in known]
    write_rows(tmp_path / "test.jsonl", [*rows, *others])
    tried = trial(tmp_path, "tiny", train="known.jsonl")
    (only,) = tried.result.systems  # type: ignore[attr-defined]
    assert only.estimates["choice"].n == 16
    assert only.scores["choice"][8:] == (0.0,) * 8


def test_answers_that_are_letters_of_choices_are_judged_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    write_rows(
        tmp_path / "test.jsonl",
        ({"prompt": f"q {i}", "completion": "AB"[i % 2], "choices": ["one", "two"]}
         for i in range(12)),
    )  # fmt: skip
    tried = trial(tmp_path, "tiny")
    assert tried.result.primary == "exact"  # type: ignore[attr-defined]


def test_empty_choices_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    write_rows(
        tmp_path / "test.jsonl",
        ({"prompt": f"q {i}", "completion": "x", "choices": ["x", ""]} for i in range(6)),
    )
    assert trial(tmp_path, "tiny").result.primary == "exact"  # type: ignore[attr-defined]


def trial(folder: Path, *systems: object, **changes: object) -> object:
    content = {"systems": [s if isinstance(s, dict) else {"model": str(s)} for s in systems],
               "data": "test.jsonl", "runtime": CPU, **changes}  # fmt: skip
    return try_systems(trial_from(content))


def test_choices_of_rows_are_weighed_by_local_models_and_read_from_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    rows = [
        {"prompt": f"even or odd: {i}", "completion": "odd" if i % 2 else "even",
         "choices": ["odd", "even"]}
        for i in range(12)
    ]  # fmt: skip
    write_rows(tmp_path / "test.jsonl", rows)
    answers = [{"prompt": row["prompt"], "answer": " odd\n"} for row in rows]
    write_rows(tmp_path / "said.jsonl", answers)
    tried = trial(tmp_path, "tiny", "said.jsonl")
    assert tried.result.primary == "choice"  # type: ignore[attr-defined]
    tiny, said = tried.result.systems  # type: ignore[attr-defined]
    assert all(p.picked in ("odd", "even") for p in tiny.predictions)
    assert said.estimates["choice"].value == 0.5
    (kept,) = tried.folder.glob("answers/tiny-*.jsonl")  # type: ignore[attr-defined]
    again = trial(tmp_path, str(kept))
    (replayed,) = again.result.systems  # type: ignore[attr-defined]
    assert replayed.scores["choice"] == tiny.scores["choice"]


def test_labelled_rows_are_asked_of_models_that_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    write_rows(
        tmp_path / "test.jsonl",
        ({"text": f"text {i}", "label": "ab"[i % 2]} for i in range(8)),
    )
    tried = trial(tmp_path, "tiny")
    (only,) = tried.result.systems  # type: ignore[attr-defined]
    assert only.estimates["choice"].n == 8
    assert "Answer with one of these: a, b." in tried.report.read_text("utf-8")  # type: ignore[attr-defined]


def test_rows_without_choices_cannot_be_judged_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "tiny")
    # A column of that name may hold anything: a log's answers, or texts without the right one.
    write_rows(
        tmp_path / "test.jsonl",
        ({"prompt": f"q {i}", "completion": "a", "choices": [[{"index": 0}], ["x", "y"], "a"][i]}
         for i in range(3)),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="choice cannot judge any of the 3"):
        trial(tmp_path, "tiny", evaluation={"metrics": ["choice"], "primary": "choice"})
