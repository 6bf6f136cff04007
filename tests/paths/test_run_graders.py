"""Graders in a run's own recipe see rows' fields, and models that grade are announced."""

import json
from pathlib import Path

import pytest
from journey import luthier, run_folder, write_task

from endpoint import serving

GRADER = {
    "type": "string_check", "name": "as_said", "input": "{{sample.output_text}}",
    "reference": "{{item.messages[2].content}}", "operation": "eq",
}  # fmt: skip


def test_graders_see_what_rows_hold(tmp_path: Path) -> None:
    write_task(
        tmp_path, name="graded",
        evaluation={"shots": [], "nearest": 0, "max_new_tokens": 12, "resamples": 200,
                    "graders": [GRADER], "metrics": ["exact", "loss"]},
    )  # fmt: skip
    done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    report = json.loads((run_folder(tmp_path) / "report.json").read_text("utf-8"))
    evaluation = report["evaluation"]
    assert evaluation["primary"] == "as_said"
    wanted = [example["messages"][2]["content"] for example in evaluation["examples"]]
    for system in evaluation["systems"]:
        said = [prediction["text"] for prediction in system["predictions"]]
        assert system["scores"]["as_said"] == [
            float(a == b) for a, b in zip(said, wanted, strict=True)
        ]


@pytest.mark.enable_socket
def test_what_models_that_grade_are_asked_is_said(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")
    with serving(lambda asked: '{"result": 0.5}') as server:
        grader = {
            "type": "score_model", "name": "mark", "model": f"{server.url}#small",
            "input": [{"role": "user", "content": "Mark {{sample.output_text}}"}], "range": [0, 1],
        }  # fmt: skip
        write_task(
            tmp_path, name="marked",
            evaluation={"shots": [], "nearest": 0, "max_new_tokens": 4, "resamples": 200,
                        "graders": [grader], "metrics": ["loss"],
                        "judge": {"input_price": 1000.0}},
        )  # fmt: skip
        done = luthier(tmp_path, "train", "recipe.yaml")
    assert done.code == 0, done.error
    assert "is asked 4 questions, about " in done.out
    assert "that costs about 0." in done.out
