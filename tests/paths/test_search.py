"""A search tries settings by validation loss, goes on where it stopped, and judges once."""

import json
import signal
import time
from pathlib import Path

import pytest
from journey import luthier, start, write_task

from luthier.pipeline import hyperparameters

TRY = ("--try", "training.learning_rate=1e-5..3e-2", "--try", "tuning.rank=2,4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_task(tmp_path, name="counting")
    return tmp_path


def attempts(folder: Path) -> list[dict[str, object]]:
    (place,) = (folder / "luthier-workspace" / "searches").glob("*/search.json")
    found: list[dict[str, object]] = json.loads(place.read_text("utf-8"))
    return found


def test_settings_are_searched_and_the_best_are_judged_once(folder: Path) -> None:
    done = luthier(folder, "search", "recipe.yaml", *TRY, "--attempts", "8")
    assert done.code == 0, done.error
    found = attempts(folder)
    assert len(found) == 8
    losses = [float(str(a["loss"])) for a in found if a["state"] == "finished"]
    assert len(losses) >= 5
    best = min((a for a in found if a["state"] == "finished"), key=lambda a: float(str(a["loss"])))
    (run,) = json.loads(luthier(folder, "runs", "list", "--json").out)
    assert run["status"] == "finished"
    lines = json.loads(
        (folder / "luthier-workspace" / "runs" / run["id"] / "recipe.resolved.json").read_text()
    )
    values = {line["path"]: line["value"] for line in lines}
    settings = best["settings"]
    assert isinstance(settings, dict)
    assert values["training.learning_rate"] == float(settings["training.learning_rate"])
    assert values["tuning.rank"] == int(settings["tuning.rank"])
    report = json.loads(
        (folder / "luthier-workspace" / "runs" / run["id"] / "report.json").read_text()
    )
    validated = [point["loss"] for point in report["validation"]]
    assert min(validated) == pytest.approx(min(losses), abs=1e-6), "the same training again"
    assert "8 attempts" in done.out
    search = next((folder / "luthier-workspace" / "searches").iterdir())
    page = (search / "search.html").read_text("utf-8")
    assert page.count("<svg") == 2
    assert not list(search.glob("attempt-*")), "nothing is left of attempts"
    again = luthier(folder, "search", "recipe.yaml", *TRY, "--attempts", "8")
    assert again.code == 0
    assert len(attempts(folder)) == 8


def test_a_killed_search_goes_on(folder: Path) -> None:
    command = ("search", "recipe.yaml", *TRY, "--attempts", "3", "--set", "training.epochs=40",
               "--set", "training.checkpoint_every=5")  # fmt: skip
    process = start(folder, *command)
    place = folder / "luthier-workspace" / "searches"
    deadline = time.monotonic() + 120
    while not list(place.glob("*/attempt-*/checkpoints/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(place.glob("*/attempt-*")), "it was killed while it tried"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hyperparameters, "JUST_BEGUN", 0.0)
        done = luthier(folder, *command)
    assert done.code == 0, done.error
    assert len(attempts(folder)) == 3
    assert not list(place.glob("*/attempt-*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--try", "tuning.rank=0,4"], "tuning.rank"),
        (["--try", "training.learning_rate=-1..1"], "training.learning_rate"),
        (["--attempts", "1"], "--attempts: is 1; expected 2 or more"),
        (["--set", "data.validation_share=0"], "has no validation rows"),
        (["--try", "evaluation.limit=1,2"], "only fields of training and tuning"),
    ],
)
def test_searches_that_cannot_be_are_refused(folder: Path, arguments: list[str], said: str) -> None:
    done = luthier(folder, "search", "recipe.yaml", "--attempts", "4", *arguments)
    assert done.code == 2, done.out
    assert said in " ".join(done.error.split())
    assert not (folder / "luthier-workspace" / "searches.db").exists()


def test_what_fails_is_told_and_avoided(folder: Path) -> None:
    done = luthier(folder, "search", "recipe.yaml", "--try", "tuning.rank=1..64",
                   "--attempts", "12")  # fmt: skip
    assert done.code == 0, done.error
    failed = [a for a in attempts(folder) if a["state"] == "failed"]
    assert 0 < len(failed) < 9
    assert all("is larger than model.layers.0" in str(a["error"]) for a in failed)
    assert all(a["loss"] is None for a in failed)


def test_attempts_that_all_fail_end_the_search(folder: Path) -> None:
    done = luthier(folder, "search", "recipe.yaml", "--try", "training.learning_rate=1e30..1e35",
                   "--attempts", "6")  # fmt: skip
    assert done.code == 2
    assert "attempts failed, the last: " in done.error
