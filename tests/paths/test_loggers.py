"""Experiment trackers get the run's numbers; what they wrote is read back by their own readers."""

import json
import sys
from pathlib import Path

import pytest
from journey import SETTINGS, fresh_luthier, run_folder, write_task

STEPS = list(range(1, 17))


def trained(folder: Path, logger: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that was logged; the process of its own, as a user's."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_task(folder, runtime={**SETTINGS["runtime"], "loggers": [logger]})
    done = fresh_luthier(folder, "train", "recipe.yaml")
    assert done.code == 0, done.error
    return run_folder(folder)


def losses(place: Path) -> dict[int, float]:
    events = map(json.loads, (place / "events.jsonl").read_text().splitlines())
    return {event["step"]: event["loss"] for event in events if event["event"] == "step"}


def test_tensorboard_reads_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    place = trained(tmp_path, "tensorboard", monkeypatch)
    found = reader.EventAccumulator(str(place / "tensorboard"), {"tensors": 0})
    found.Reload()
    names = set(found.Tags()["tensors"])
    assert {"train/loss", "train/learning_rate", "validation/loss"} <= names
    assert {"test/prompt alone/exact", "test/fine-tuned/exact"} <= names
    events = found.Tensors("train/loss")
    assert [event.step for event in events] == STEPS
    expected = losses(place)
    for event in events:
        assert event.tensor_proto.float_val[0] == pytest.approx(expected[event.step], rel=1e-6)


@pytest.mark.filterwarnings("ignore:The ``noload``")
def test_mlflow_reads_every_step_and_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    place = trained(tmp_path, "mlflow", monkeypatch)
    database = tmp_path / "luthier-workspace" / "mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("luthier")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["tuning.rank"] == "4"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in history} == pytest.approx(losses(place))
    assert "test/fine-tuned/exact" in run.data.metrics


def test_wandb_keeps_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    place = trained(tmp_path, "wandb", monkeypatch)
    (kept,) = (place / "wandb").glob("offline-run-*/run-*.wandb")
    assert kept.stat().st_size > 1000


def test_trackio_keeps_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    place = trained(tmp_path, "trackio", monkeypatch)
    import sqlite3

    (database,) = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select step, metrics from metrics").fetchall()
    numbers = [(step, json.loads(metrics)) for step, metrics in rows]
    found = {step: values["train/loss"] for step, values in numbers if "train/loss" in values}
    assert found == pytest.approx(losses(place))


def test_a_tracker_that_is_not_installed_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luthier.errors import ConfigError
    from luthier.pipeline.loggers import open_loggers

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb is not installed.*luthier\[wandb\]"):
        open_loggers(("wandb",), None, {})  # type: ignore[arg-type]
