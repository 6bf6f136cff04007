"""From rows to verdict and on, by the command line and by Python, on a real tiny model."""

import json
import re
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch
from journey import (
    Done,
    fresh_luthier,
    luthier,
    rows,
    run_folder,
    start,
    tiny_disk,
    write_rows,
    write_task,
)
from safetensors.torch import load_file

import luthier as package


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("task")
    write_task(folder)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Done:
    return fresh_luthier(folder, "train", "recipe.yaml")


def test_train_goes_the_whole_path_and_prints_the_verdict(folder: Path, trained: Done) -> None:
    assert trained.error == ""
    assert trained.code == 0
    record = json.loads((run_folder(folder) / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["decision"] in ("better", "worse", "cannot tell")
    for text in ("prompt alone", "2 examples in the prompt", "fine-tuned", "step 16/16"):
        assert text in trained.out
    assert "held-out rows" in " ".join(trained.out.split())
    assert "report.html" in trained.out


def test_the_run_keeps_everything_it_did(folder: Path, trained: Done) -> None:
    place = run_folder(folder)
    names = {path.name for path in place.iterdir()}
    assert names >= {
        "run.json", "recipe.yaml", "recipe.resolved.json", "ledger.json", "environment.json",
        "events.jsonl", "checkpoints", "adapter", "evaluation", "report.html", "report.json",
    }  # fmt: skip
    events = [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert steps == list(range(1, 17))
    report = json.loads((place / "report.json").read_text())
    assert len(report["evaluation"]["systems"]) == 4
    page = (place / "report.html").read_text()
    assert "<svg" in page
    assert 'http-equiv="Content-Security-Policy"' in page
    assert not list(place.rglob("*.unfinished"))


def test_the_adapter_is_an_ordinary_peft_adapter(folder: Path, trained: Done) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    place = run_folder(folder) / "adapter"
    names = set(load_file(place / "adapter_model.safetensors"))
    assert any("lora_A" in name for name in names)
    base = AutoModelForCausalLM.from_pretrained(folder / "model")
    before = base(input_ids=torch.tensor([[5, 6, 7]])).logits
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers for an attribute's old name
        warnings.simplefilter("ignore", FutureWarning)
        tuned = PeftModel.from_pretrained(base, place)
    after = tuned(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert not torch.allclose(before, after)


def test_runs_are_listed_and_shown(folder: Path, trained: Done) -> None:
    listed = luthier(folder, "runs", "list")
    assert "rows" in listed.out
    assert "finished" in listed.out
    assert json.loads(luthier(folder, "runs", "list", "--json").out)[0]["status"] == "finished"
    assert run_folder(folder).name in luthier(folder, "runs", "show", "rows").out
    shown = luthier(folder, "report", "rows")
    assert "held-out rows" in shown.out
    assert "report.html" in shown.out


def test_chat_answers_every_line(folder: Path, trained: Done) -> None:
    done = luthier(folder, "chat", "rows", typed="number 7\nnumber 8\n")
    assert (done.code, done.error) == (0, "")
    assert done.out.count("\n") >= 2


def test_evaluate_judges_other_rows(folder: Path, trained: Done) -> None:
    write_rows(folder / "more.jsonl", rows(12, start=100))
    done = luthier(folder, "evaluate", "rows", "--data", "more.jsonl")
    assert (done.code, done.error) == (0, "")
    assert "12 held-out rows" in " ".join(done.out.split())


def test_check_preview_and_recipe_show_say_what_would_be_done(folder: Path) -> None:
    assert "Nothing stands in the way" in luthier(folder, "check", "recipe.yaml").out
    preview = luthier(folder, "preview", "recipe.yaml", "--rows", "1").out
    assert '[[{"n": ' in preview
    assert "<|im_end|>]]" in preview
    luthier(folder, "preview", "recipe.yaml", "--html", "preview.html")
    assert "<mark>{&quot;n&quot;" in (folder / "preview.html").read_text()
    shown = luthier(folder, "recipe", "show", "recipe.yaml", "--set", "training.epochs=3").out
    assert "--set training.epochs=3" in shown
    assert "auto: the longest row has" in shown


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(run_folder(folder) / "adapter" / "adapter_model.safetensors")


def test_killed_at_any_moment_the_same_command_resumes_to_the_same_weights(
    folder: Path, trained: Done, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    write_task(killed)
    # Plain output has a line for each step of a short run, and for each stage.
    for moment in ("prompt alone:", "step 5/", "step 11/", "evaluate the tuned"):
        process = start(killed, "train", "recipe.yaml")
        assert process.stdout is not None
        for line in process.stdout:
            if moment in line:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    done = luthier(killed, "train", "recipe.yaml")
    assert done.code == 0
    assert "going on with" in done.out
    expected, found = adapter_of(folder), adapter_of(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("kilobytes", [120, 240, 320])
def test_a_full_disk_is_said_and_with_room_the_same_command_goes_on(
    tmp_path: Path, kilobytes: int
) -> None:
    write_task(tmp_path)
    place = tmp_path / "disk"
    place.mkdir()
    with tiny_disk(place, f"{kilobytes}k") as give_room:
        command = ("train", "recipe.yaml", "--set", f"runtime.workspace={place}")
        full = luthier(tmp_path, *command)
        assert full.code == 2, full.out + full.error
        assert re.search("disk is full|No space left on device; free", full.error)
        assert "Traceback" not in full.error
        give_room("50m")
        done = luthier(tmp_path, *command)
        assert done.code == 0, done.error
        (found,) = (place / "runs").iterdir()
        assert json.loads((found / "run.json").read_text())["status"] == "finished"
        assert not list(place.rglob("*.unfinished*"))


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_task(tmp_path)
    process = start(tmp_path, "train", "recipe.yaml")
    assert process.stdout is not None
    for line in process.stdout:
        if "step 3/" in line:
            process.send_signal(signal.SIGINT)
            break
    out, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (130, "")
    assert "Run the same command again to go on" in out
    record = json.loads((run_folder(tmp_path) / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert "going on with" in luthier(tmp_path, "train", "recipe.yaml").out


def test_a_second_process_does_not_touch_a_run_that_is_worked_on(tmp_path: Path) -> None:
    write_task(tmp_path)
    first = start(tmp_path, "train", "recipe.yaml")
    assert first.stdout is not None
    while "step 1/" not in first.stdout.readline():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it must still be at work when the second one looks
    second = luthier(tmp_path, "train", "recipe.yaml")
    first.send_signal(signal.SIGCONT)
    first.communicate()
    assert second.code == 2
    assert "is working on this run" in second.error
    assert first.returncode == 0


def test_python_goes_the_same_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    events: list[str] = []
    tuned = package.tune(
        model=str(folder / "model"),
        data={"train": str(folder / "rows.jsonl")},
        training={"epochs": 1, "learning_rate": 0.01},
        evaluation={"shots": [1], "max_new_tokens": 8, "resamples": 100},
        runtime={"dtype": "float32", "cache": str(tmp_path / "cache")},
        observe=lambda event: events.append(type(event).__name__),
    )
    assert tuned.is_finished
    assert tuned.verdict is not None
    assert tuned.report.is_file()
    assert {"StageStarted", "Ready", "StepDone", "SystemFinished"} <= set(events)
    assert isinstance(tuned.open().ask("number 3"), str)


def test_a_profile_says_where_the_time_went(tmp_path: Path) -> None:
    write_task(tmp_path)
    done = luthier(tmp_path, "train", "recipe.yaml", "--profile")
    assert done.code == 0, done.error
    profile = json.loads((run_folder(tmp_path) / "profile.json").read_text())
    assert profile["num_steps"] == 5
    assert sum(profile["parts"].values()) == pytest.approx(1)
    assert set(profile["parts"]) == {"linears", "attention", "head", "optimizer", "data", "rest"}
    assert all(share > 0 for share in profile["parts"].values())
    assert 0 < profile["flops"] < profile["limit"]
    assert 0 < profile["masked_share"] < 1
    assert 0 < profile["computed_share"] < 1.5
    assert re.search(r"profile of 5 steps: linears \d+%, attention", done.out)
    assert "tokens/s; of the tokens" in done.out
    assert "Profiler" not in done.error, "the profiler keeps to itself"


def test_a_model_that_writes_is_asked_with_terms_swapped(folder: Path, trained: Done) -> None:
    assert trained.code == 0
    done = luthier(folder, "probe", "rows", "--data", "rows.jsonl", "--swap", "number=figure")
    assert done.code == 0, done.error
    assert "of 40 answers changed" in done.out
