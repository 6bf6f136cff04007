"""The loop: exact accumulation, bit-equal resume after SIGKILL, early stopping, loud failures."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from luthier.errors import CheckpointError, TrainingError
from luthier.models import LanguageModel, load_model, make_trainable, trained_parameters
from luthier.recipe import LoRA, Training
from luthier.tokens import IGNORED, Encoded
from luthier.training import (
    Damaged,
    Measured,
    Outcome,
    Saved,
    StepDone,
    SupervisedObjective,
    Surroundings,
    TrainingEvent,
    Validated,
    train,
)
from luthier.training.checkpoints import list_checkpoints, write_folder
from luthier.training.optimizers import learning_rate_factor
from tiny import write_model

SETTINGS = {
    "epochs": 3, "batch_size": 4, "micro_batch_tokens": 64, "max_length": 100,
    "learning_rate": 0.01, "evaluate_every": 3, "checkpoint_every": 2, "patience": 99,
}  # fmt: skip


def examples(count: int = 10) -> list[Encoded]:
    """Sequences of growing length, some of which begin alike."""
    made = []
    for i in range(count):
        ids = [4 + (j * (1 + i // 3)) % 90 for j in range(12 + 3 * i)]
        labels = [IGNORED] * 8 + ids[8:]
        made.append(Encoded(f"row {i}", ids, labels, ((8, len(ids)),)))
    return made


def tiny_model(folder: Path, dropout: float = 0.0) -> LanguageModel:
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    lora = LoRA.model_validate({"rank": 4, "dropout": dropout})
    make_trainable(model, lora, seed=0)
    return model


def weights_of(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in trained_parameters(model.network).items()}


def run(
    model: LanguageModel,
    folder: Path,
    *,
    observe: Callable[[TrainingEvent], None] = lambda event: None,
    validate: Callable[[], Measured] | None = None,
    is_interrupted: Callable[[], bool] = lambda: False,
    rows: list[Encoded] | None = None,
    recipe_hash: str = "r",
    **settings: object,
) -> Outcome:
    surroundings = Surroundings(
        folder, recipe_hash, validate, observe, is_interrupted, memory=lambda: 0
    )
    training = Training.model_validate({**SETTINGS, **settings})
    objective = SupervisedObjective(share_prefixes=True)
    return train(model, objective, rows or examples(), training, surroundings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"))


def test_one_batch_of_eight_equals_eight_batches_of_one(folder: Path, tmp_path: Path) -> None:
    trained, traces = [], []
    for budget in (1, 100_000):
        trace: list[float] = []
        model = tiny_model(folder)

        def note(event: TrainingEvent, trace: list[float] = trace) -> None:
            if isinstance(event, StepDone):
                trace.append(event.loss)

        run(model, tmp_path / str(budget), observe=note, batch_size=8, micro_batch_tokens=budget)
        trained.append(weights_of(model))
        traces.append(trace)
    assert traces[0] == pytest.approx(traces[1], rel=1e-5)
    start = weights_of(tiny_model(folder))
    for name, weight in trained[0].items():
        # Of the way all weights went, not of each: AdamW blows up the rounding of tiny gradients.
        apart, moved = (weight - trained[1][name]).norm(), (weight - start[name]).norm()
        assert apart < 1e-3 * moved, name


def test_the_loss_of_a_step_is_the_mean_over_its_supervised_tokens(
    folder: Path, tmp_path: Path
) -> None:
    steps: list[StepDone] = []
    rows = examples(4)
    model = tiny_model(folder)
    each = [model.loss(SupervisedObjective(share_prefixes=True).collate([row])) for row in rows]
    expected = sum(loss.total.item() for loss in each) / sum(len(loss.each) for loss in each)
    run(
        model, tmp_path, rows=rows, max_steps=1,
        observe=lambda e: steps.append(e) if isinstance(e, StepDone) else None,
    )  # fmt: skip
    assert steps[0].loss == pytest.approx(expected, rel=1e-5)
    assert steps[0].num_supervised == sum(row.num_supervised for row in rows)
    assert steps[0].num_tokens == sum(len(row.input_ids) for row in rows)


def test_training_learns(folder: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    model = tiny_model(folder)
    run(
        model, tmp_path, epochs=20,
        observe=lambda e: losses.append(e.loss) if isinstance(e, StepDone) else None,
    )  # fmt: skip
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    folder: Path, tmp_path: Path, dropout: float
) -> None:
    whole = tiny_model(folder, dropout)
    assert run(whole, tmp_path / "whole").status == "finished"
    for stop_after in (1, 4, 7):
        place = tmp_path / f"stopped-{stop_after}"
        steps: list[TrainingEvent] = []

        def is_interrupted(
            steps: list[TrainingEvent] = steps, stop_after: int = stop_after
        ) -> bool:
            return sum(isinstance(event, StepDone) for event in steps) >= stop_after

        outcome = run(
            tiny_model(folder, dropout), place,
            observe=steps.append, is_interrupted=is_interrupted,
        )  # fmt: skip
        assert (outcome.status, outcome.num_steps) == ("interrupted", stop_after)
        resumed = tiny_model(folder, dropout)
        assert run(resumed, place).status == "finished"
        for name, weight in weights_of(whole).items():
            assert torch.equal(weight, weights_of(resumed)[name]), name


KILLED_RUN = """
import sys
from pathlib import Path
from test_loop import *

def validate():
    return sum(float(p.detach().abs().sum()) for p in trained_parameters(model.network).values())

def observe(event):
    print(type(event).__name__, getattr(event, "step", 0), flush=True)

torch.set_num_threads(1)
model = tiny_model(Path(sys.argv[1]), dropout=0.2)
run(model, Path(sys.argv[2]), validate=lambda: Measured(-validate(), {}), observe=observe, epochs=4)
from safetensors.torch import save_file
save_file({n: p.detach() for n, p in trained_parameters(model.network).items()}, sys.argv[3])
"""


def test_killed_with_sigkill_and_resumed_equals_uninterrupted_bit_for_bit(
    folder: Path, tmp_path: Path
) -> None:
    def start(place: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", KILLED_RUN, str(folder),
             str(tmp_path / place), str(tmp_path / f"{place}.safetensors")],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}"},
        )  # fmt: skip

    whole = start("whole")
    assert whole.communicate()[0].count("StepDone") == 12
    # Killed as soon as these lines appear: within a step, and around writing a checkpoint.
    for moment in ("StepDone 3", "Saved 6", "StepDone 8", "Validated 9"):
        process = start("killed")
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == moment:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start("killed")
    steps = last.communicate()[0].count("StepDone")
    assert last.returncode == 0
    assert steps < 12, "the last run resumed from a checkpoint"
    expected = load_file(tmp_path / "whole.safetensors")
    found = load_file(tmp_path / "killed.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_cut_short_by_a_crash_is_never_seen(folder: Path, tmp_path: Path) -> None:
    run(tiny_model(folder), tmp_path, max_steps=3)
    complete = list_checkpoints(tmp_path)
    half = tmp_path / ".step-00000099.1.unfinished"
    half.mkdir()
    (half / "state.json").write_text("{")
    assert list_checkpoints(tmp_path) == complete
    run(tiny_model(folder), tmp_path, max_steps=3)
    assert not half.exists()


def test_early_stopping_keeps_the_best_weights(folder: Path, tmp_path: Path) -> None:
    model = tiny_model(folder)
    at_best: list[dict[str, torch.Tensor]] = []
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])

    def validate() -> Measured:
        loss = next(losses)
        if loss == 1.0:
            at_best.append(weights_of(model))
        return Measured(loss, {})

    events: list[TrainingEvent] = []
    outcome = run(
        model, tmp_path, validate=validate, observe=events.append, evaluate_every=1,
        patience=3, epochs=9,
    )  # fmt: skip
    assert outcome == Outcome("stopped early", 5, best_step=2, best_loss=1.0)
    for name, weight in weights_of(model).items():
        assert torch.equal(weight, at_best[0][name])
    assert [e.is_best for e in events if isinstance(e, Validated)] == [1, 1, 0, 0, 0]


def test_best_weights_that_the_disk_changed_are_not_taken(folder: Path, tmp_path: Path) -> None:
    losses = iter([1.0, 2.0, 3.0])

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, Validated) and event.step == 6:
            (kept,) = tmp_path.glob("best-00000003.safetensors")
            content = bytearray(kept.read_bytes())
            content[-1] ^= 1
            kept.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"best-00000003.*not as they were written"):
        run(
            tiny_model(folder), tmp_path, observe=observe,
            validate=lambda: Measured(next(losses), {}), max_steps=9,
        )  # fmt: skip


def test_a_checkpoint_whose_best_weights_are_damaged_is_passed_over(
    folder: Path, tmp_path: Path
) -> None:
    """At once, and not after all the hours of the rest of the run."""
    whole = tiny_model(folder)
    run(whole, tmp_path / "whole", validate=falling())
    run(
        tiny_model(folder), tmp_path / "cut", validate=falling(),
        is_interrupted=stop_after_saving(3),
    )  # fmt: skip
    (tmp_path / "cut" / "best-00000006.safetensors").write_bytes(b"")
    events: list[TrainingEvent] = []
    resumed = tiny_model(folder)
    losses = falling(4.0)
    assert run(resumed, tmp_path / "cut", validate=losses, observe=events.append).best_step == 9
    (damaged,) = [event for event in events if isinstance(event, Damaged)]
    assert "step-00000006: names the best weights best-00000006" in damaged.reason
    assert next(e.step for e in events if isinstance(e, StepDone)) == 5
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(resumed)[name])


def falling(start: float = 5.0) -> Callable[[], Measured]:
    """Validation losses of which each is the best so far."""
    losses = iter(start - i for i in range(99))
    return lambda: Measured(next(losses), {})


def test_all_that_a_checkpoint_needs_is_on_the_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    run(tiny_model(folder), tmp_path, validate=falling())
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name[:4] for path in left} >= {"best", "trai", "opti", "stat", "sha2"}
    assert [path for path in (tmp_path, *left) if path.stat().st_ino not in synced] == []


def test_best_weights_are_kept_as_long_as_a_checkpoint_names_them(
    folder: Path, tmp_path: Path
) -> None:
    losses, seen = iter([5.0, 4.0, 3.0]), []

    def observe(event: TrainingEvent) -> None:
        if isinstance(event, Saved):
            kept = sorted(int(p.stem[5:]) for p in tmp_path.glob("best-*.safetensors"))
            seen.append((event.step, kept))

    run(
        tiny_model(folder), tmp_path, observe=observe,
        validate=lambda: Measured(next(losses), {}), max_steps=9,
    )  # fmt: skip
    # Validated after 3, 6 and 9 steps; the two newest checkpoints are kept.
    assert seen == [(2, []), (4, [3]), (6, [3, 6]), (8, [6]), (9, [6, 9])]


def test_a_loss_that_is_not_finite_stops_before_the_update(folder: Path, tmp_path: Path) -> None:
    model = tiny_model(folder)
    name, poisoned = next(iter(trained_parameters(model.network).items()))
    with torch.no_grad():
        poisoned.fill_(math.nan)
    before = weights_of(model)
    with pytest.raises(TrainingError, match=r"step 1: the loss is nan.*learning_rate"):
        run(model, tmp_path)
    after = weights_of(model)
    assert all(torch.equal(before[n], after[n]) for n in before if n != name)
    assert list_checkpoints(tmp_path) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_is_no_best_one(
    folder: Path, tmp_path: Path, loss: float
) -> None:
    with pytest.raises(TrainingError, match=f"step 3: the validation loss is {loss}"):
        run(tiny_model(folder), tmp_path, validate=lambda: Measured(loss, {}))
    assert not list(tmp_path.glob("best-*"))


def test_a_checkpoint_of_another_recipe_is_refused(folder: Path, tmp_path: Path) -> None:
    run(tiny_model(folder), tmp_path, max_steps=2)
    with pytest.raises(CheckpointError, match="belongs to another recipe"):
        run(tiny_model(folder), tmp_path, recipe_hash="other")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("optimizer.safetensors", "cut"), ("trained.safetensors", "flip"), ("state.json", "flip"),
        ("trained.safetensors", "remove"), ("sha256.json", "remove"), ("sha256.json", "cut"),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_passed_over_and_named(
    folder: Path, tmp_path: Path, file: str, damage: str
) -> None:
    whole = tiny_model(folder)
    run(whole, tmp_path / "whole")
    run(tiny_model(folder), tmp_path / "cut", is_interrupted=stop_after_saving(2))
    place = list_checkpoints(tmp_path / "cut")[-1] / file
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        place.unlink()
    else:
        place.write_bytes(content[:9] if damage == "cut" else content)
    events: list[TrainingEvent] = []
    resumed = tiny_model(folder)
    assert run(resumed, tmp_path / "cut", observe=events.append).status == "finished"
    (damaged,) = [event for event in events if isinstance(event, Damaged)]
    assert "step-00000004" in damaged.reason
    assert next(e.step for e in events if isinstance(e, StepDone)) == 3
    for name, weight in weights_of(whole).items():
        assert torch.equal(weight, weights_of(resumed)[name])


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{}"])
def test_a_run_that_passed_over_a_checkpoint_saves_beside_it(
    folder: Path, tmp_path: Path, content: bytes | None
) -> None:
    run(tiny_model(folder), tmp_path, is_interrupted=stop_after_saving(2))
    place = tmp_path / "step-00000004" / "state.json"
    place.unlink() if content is None else place.write_bytes(content)
    outcome = run(tiny_model(folder), tmp_path, is_interrupted=lambda: True)
    assert (outcome.status, outcome.num_steps) == ("interrupted", 3)


def stop_after_saving(count: int) -> Callable[[], bool]:
    """Interrupts after as many checkpoints, of two steps each, would have been written."""
    asked = iter(range(1, 100))
    return lambda: next(asked) >= 2 * count


def test_when_no_checkpoint_is_whole_the_error_says_so(folder: Path, tmp_path: Path) -> None:
    run(tiny_model(folder), tmp_path, max_steps=2)
    (list_checkpoints(tmp_path)[-1] / "optimizer.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"no checkpoint is whole(.|\n)*step-00000002"):
        run(tiny_model(folder), tmp_path)


def test_a_full_disk_leaves_earlier_checkpoints_whole(tmp_path: Path) -> None:
    write_folder(tmp_path / "step-1", {}, {"a": "1"})
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_folder(tmp_path / "blocked" / "step-2", {}, {"a": "2"})
    assert (tmp_path / "step-1" / "a").read_bytes() == b"1"


def test_only_the_newest_checkpoints_are_kept(folder: Path, tmp_path: Path) -> None:
    events: list[TrainingEvent] = []
    run(tiny_model(folder), tmp_path, observe=events.append)
    assert [e.step for e in events if isinstance(e, Saved)] == [2, 4, 6, 8, 9]
    assert [p.name for p in list_checkpoints(tmp_path)] == ["step-00000008", "step-00000009"]


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate_factor(step, 100, 0.1, "cosine") for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert learning_rate_factor(99, 100, 0.1, "constant") == 1.0
    assert learning_rate_factor(55, 100, 0.1, "linear") == pytest.approx(0.5)
    assert learning_rate_factor(0, 1, 0.05, "cosine") == 1.0
