"""Tasks of lm-evaluation-harness: what our models score is what its own Hugging Face models do."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from journey import luthier, write_rows, write_task

from luthier.models import load_model
from luthier.pipeline.local import LocalModel
from luthier.tokens import Tokenizer
from tiny import write_model

lm_eval = pytest.importorskip("lm_eval", reason="the harness is an extra")


def task(folder: Path, name: str, **settings: object) -> str:
    """A task of 12 rows in a file."""
    rows = [
        {"question": f"number {i} is", "choices": [" odd", " even", " both of them"],
         "answer": (i + 1) % 2, "text": f"The number {i} is {i % 2}. " * (i + 1)}
        for i in range(12)
    ]  # fmt: skip
    write_rows(folder / f"{name}.jsonl", rows)
    content = {
        "task": name, "dataset_path": "json", "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}, **settings,
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return f"{name}.yaml"


def mean(*names: str) -> list[dict[str, object]]:
    return [{"metric": n, "aggregation": "mean", "higher_is_better": True} for n in names]


CHOICES = {
    "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices",
    "doc_to_target": "answer", "metric_list": mean("acc", "acc_norm"),
}  # fmt: skip
ENDING = {
    "output_type": "loglikelihood", "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[answer]}}", "metric_list": mean("acc"),
}  # fmt: skip
ROLLING = {
    "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}  # fmt: skip
WRITING = {
    "output_type": "generate_until", "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[answer]}}", "metric_list": mean("exact_match"),
    "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 8, "do_sample": False},
}  # fmt: skip


def asked(model: Any, folder: Path, name: str) -> dict[str, Any]:
    manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=model, tasks=[name], task_manager=manager, bootstrap_iters=0, verbosity="ERROR"
    )
    assert isinstance(found, dict)
    return found


WRITING_LONG = {
    **WRITING, "generation_kwargs": {"until": ["\n"], "max_new_tokens": 12},
}  # fmt: skip


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("kind", [CHOICES, ENDING, ROLLING, WRITING, WRITING_LONG])
def test_scores_are_those_of_the_harness_own_models(
    tmp_path: Path, kind: dict[str, Any], begins: bool
) -> None:
    from lm_eval.models.huggingface import HFLM

    from luthier.pipeline.harness import HarnessModel

    write_model(tmp_path / "tiny", max_position_embeddings=128, begins=begins)
    task(tmp_path, "numbers", **kind)
    model = load_model(tmp_path / "tiny", dtype=torch.float32, device=torch.device("cpu"))
    told: list[tuple[int, int]] = []
    ours = HarnessModel(
        LocalModel(model, Tokenizer.load(tmp_path / "tiny"), 64),
        lambda done, total: told.append((done, total)),
    )
    theirs = HFLM(str(tmp_path / "tiny"), device="cpu", dtype="float32", max_length=128)
    found, wanted = (asked(each, tmp_path, "numbers") for each in (ours, theirs))
    assert told
    for a, b in zip(found["samples"]["numbers"], wanted["samples"]["numbers"], strict=True):
        for one, other in zip(flat(a["resps"]), flat(b["resps"]), strict=True):
            assert one == (pytest.approx(other, rel=1e-4) if isinstance(other, float) else other)
        for name in a["metrics"]:
            assert a[name] == pytest.approx(b[name], rel=1e-4)


def flat(found: Any) -> list[Any]:
    """Answers and likelihoods, out of their lists."""
    if isinstance(found, list | tuple):
        return [each for part in found for each in flat(part)]
    return [found]


def test_each_way_of_looking_at_an_answer_is_a_metric(tmp_path: Path) -> None:
    write_task(tmp_path)
    named = task(
        tmp_path, "ways", **WRITING,
        filter_list=[
            {"name": "whole", "filter": [{"function": "take_first"}]},
            {"name": "letters", "filter": [
                {"function": "regex", "regex_pattern": "([a-z]+)"}, {"function": "take_first"},
            ]},
        ],
    )  # fmt: skip
    done = luthier(tmp_path, "evaluate", "./model", "--harness", named)
    assert done.code == 0, done.error
    assert "exact_match (whole)" in done.out
    assert "exact_match (letters)" in done.out


def test_what_a_task_says_of_the_whole_only_is_told_without_an_interval(tmp_path: Path) -> None:
    write_task(tmp_path)
    words = {**ROLLING, "metric_list": [{"metric": "word_perplexity"}]}
    done = luthier(tmp_path, "evaluate", "./model", "--harness", task(tmp_path, "words", **words))
    assert done.code == 0, done.error
    (line,) = [line.split() for line in done.out.splitlines() if line.split()[:1] == ["words"]]
    assert line[1:4] == ["word_perplexity", "./model", "12"]
    assert float(line[4].replace(",", "")) > 1
    assert "interval" not in line
    beside = luthier(tmp_path, "evaluate", "./model", "--harness", "words.yaml", "--data", "x")
    assert "--data: is for rows of one's own" in beside.error


def test_models_are_compared_row_by_row(tmp_path: Path) -> None:
    write_task(tmp_path, name="mine")
    assert luthier(tmp_path, "train", "recipe.yaml").code == 0
    first, second = task(tmp_path, "numbers", **CHOICES), task(tmp_path, "texts", **ROLLING)
    done = luthier(tmp_path, "evaluate", "mine", "./model", "--harness", first,
                   "--harness", second, "--set", "evaluation.limit=10")  # fmt: skip
    assert done.code == 0, done.error
    lines = [line.split() for line in done.out.splitlines()]
    (against,) = [line for line in lines if line[:3] == ["numbers", "acc", "./model"]]
    assert against[3] == "10"
    assert "points" in against
    (kept,) = (tmp_path / "luthier-workspace" / "harness").iterdir()
    assert len(json.loads(kept.read_text())["run:mine"]["numbers"]["rows"]) == 10


@pytest.mark.parametrize(
    ("named", "said"),
    [("no_such_task", "does not know no_such_task"), ("gone.yaml", "gone.yaml: cannot be read"),
     ("recipe.yaml", "recipe.yaml: names no task")],
)  # fmt: skip
def test_what_is_no_task_is_refused(tmp_path: Path, named: str, said: str) -> None:
    write_task(tmp_path)
    done = luthier(tmp_path, "evaluate", "./model", "--harness", named)
    assert done.code != 0
    assert said in done.error
