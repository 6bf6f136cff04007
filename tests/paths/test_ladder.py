"""The prompts that a run must beat: nearest examples, passages, and instructions chosen apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from journey import luthier, run_folder, write_task


def systems(folder: Path) -> dict[str, dict[str, Any]]:
    report = json.loads((run_folder(folder) / "report.json").read_text("utf-8"))
    return {system["name"]: system for system in report["evaluation"]["systems"]}


def task(folder: Path, **evaluation: object) -> None:
    settings = {"shots": [2], "max_new_tokens": 12, "resamples": 200, **evaluation}
    write_task(folder, name="ladder", evaluation=settings)


def test_a_run_is_held_against_every_prompt(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for i in range(4):
        (tmp_path / "texts" / f"{i}.md").write_text(f"number {i} is {i % 5}", encoding="utf-8")
    texts = ["Answer with JSON, please.", "Say a number."]
    task(tmp_path, nearest=3, documents="texts", instructions=texts, primary="loss")
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    found = systems(tmp_path)
    named = [name for name in found if name.startswith("instructions ")]
    assert set(found) == {
        "prompt alone", "2 examples in the prompt", "3 nearest examples in the prompt",
        "3 passages in the prompt", *named, "fine-tuned",
    }  # fmt: skip
    (chosen,) = named
    assert all(found[name]["kind"] == "few_shot" for name in found if " in the prompt" in name)
    place = run_folder(tmp_path) / "evaluation" / "instructions-tried.json"
    tried = json.loads(place.read_text("utf-8"))
    assert tried["instructions"] == texts
    assert len(tried["scores"]) == 4, "each alone and with the nearest examples"
    best = min(range(4), key=tried["scores"].__getitem__)
    assert chosen.startswith(f"instructions {best % 2 + 1} of 2, chosen on validation rows")
    assert chosen.endswith("3 nearest examples in the prompt") == (best >= 2)


def test_what_was_tried_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from luthier.pipeline import prompts

    task(tmp_path, nearest=0, instructions=["Answer with JSON, please.", "Say a number."])
    assert luthier(tmp_path, "train", "recipe.yaml").code == 0
    run = run_folder(tmp_path)
    before = json.loads((run / "evaluation" / "instructions-tried.json").read_text("utf-8"))
    record = json.loads((run / "run.json").read_text("utf-8"))
    (run / "run.json").write_text(json.dumps({**record, "status": "interrupted"}), "utf-8")
    monkeypatch.setattr(prompts, "write_atomically", None)  # nothing is to be written again
    again = luthier(tmp_path, "train", "recipe.yaml")
    assert again.code == 0, again.error
    assert run_folder(tmp_path) == run
    after = json.loads((run / "evaluation" / "instructions-tried.json").read_text("utf-8"))
    assert before == after


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"instructions": ["Say a number.", " "]}, "instructions holds an empty one"),
        ({"nearest": -1}, "evaluation.nearest"),
        ({"documents": "nowhere"}, "nowhere: is no folder; expected a folder of .txt and .md"),
    ],
)
def test_prompts_that_cannot_be_are_refused(
    tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    task(tmp_path, **settings)
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 2
    assert said in " ".join(done.error.split()), done.error


def test_instructions_need_validation_rows(tmp_path: Path) -> None:
    task(tmp_path, instructions=["Say a number."])
    done = luthier(tmp_path, "train", "recipe.yaml", "--set", "data.validation_share=0")
    assert done.code == 2
    assert "are chosen on validation rows, and there are none" in " ".join(done.error.split())
