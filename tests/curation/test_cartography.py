"""Rows by how a run learnt them."""

import json
from pathlib import Path

import pytest

from luthier.curation import Selection, learnt_in, select_version
from luthier.curation.cartography import _regions
from luthier.data import Place, Row, example_key, example_of
from luthier.errors import ConfigError
from luthier.runs import LEARNT_ROWS, Datasets, NewRow, Origin, RowLosses, Run, Workspace


def fields(number: int) -> dict[str, str]:
    return {"prompt": f"question {number}", "completion": f"answer {number}"}


def key(number: int) -> str:
    example = example_of(Row(Place("rows.jsonl", number), fields(number)))
    assert example is not None
    return example_key(example)


def a_run(folder: Path, steps: list[tuple[list[int], list[float]]]) -> Run:
    workspace = Workspace.open(folder)
    texts = {LEARNT_ROWS: "\n".join(map(key, range(6)))}
    run = workspace.start(
        "learnt", texts, recipe_hash="r", data_fingerprint="d", model_sha256="m", data_files={},
        model_source="s", model_revision="",
    )  # fmt: skip
    losses = RowLosses(run.folder)
    for number, (rows, lost) in enumerate(steps, 1):
        losses.append(number, rows, lost)
    workspace.close()
    return run


STEPS = [
    ([0, 1, 2], [0.1, 3.0, 2.0]), ([3, 4], [0.1, 2.5]),
    ([0, 3, 2], [0.05, 0.1, 0.01]), ([1, 4], [3.0, 2.5]),
]  # fmt: skip


def test_rows_are_sure_unsure_or_changing(tmp_path: Path) -> None:
    found = learnt_in(a_run(tmp_path, STEPS))
    assert {number: found[key(number)].learning for number in range(5)} == {
        0: "easy", 1: "hard", 2: "ambiguous", 3: "easy", 4: "hard",
    }  # fmt: skip
    assert found[key(2)].loss == pytest.approx(1.005)
    assert found[key(1)].variability == 0
    assert found[key(0)].num_passes == 2
    assert key(5) not in found


def test_after_one_pass_nothing_is_ambiguous() -> None:
    found = _regions(["a", "b", "c"], [[0.1], [1.0], [2.0]])
    assert [row.learning for row in found.values()] == ["easy", "easy", "hard"]


def test_later_steps_are_forgotten_and_a_run_without_any_says_so(tmp_path: Path) -> None:
    run = a_run(tmp_path, STEPS)
    RowLosses(run.folder).forget_after(1)
    assert set(learnt_in(run)) == {key(0), key(1), key(2)}
    RowLosses(run.folder).forget_after(0)
    with pytest.raises(ConfigError, match="noted no losses"):
        learnt_in(run)


def test_a_version_is_chosen_and_ordered_by_what_a_run_learnt(tmp_path: Path) -> None:
    learnt = learnt_in(a_run(tmp_path, STEPS))
    datasets = Datasets(tmp_path)
    rows = [NewRow(fields(number), None, f"rows.jsonl:{number}") for number in (5, 4, 3, 2, 1, 0)]
    version, _ = datasets.add("rows", iter(rows), Origin("add", "", {}))

    def chosen(where: str = "", order: str = "") -> list[str]:
        selection = Selection(where, order=order, run="r", learnt=learnt)
        new, _ = select_version(datasets, version, selection, "chosen")
        assert new.details["run"] == "r"
        return [row.fields["prompt"][-1] for row in datasets.content(new).rows()]

    assert chosen(where="learning == 'hard'") == ["4", "1"]
    assert chosen(where="learning != 'unseen' and confidence > 0.5") == ["3", "2", "0"]
    assert chosen(order="loss") == ["0", "3", "2", "4", "1", "5"]
    assert chosen(where="learning == 'unseen'") == ["5"]
    with pytest.raises(ConfigError, match="loss"):
        chosen(where="loss > 1")
    assert json.dumps(datasets.log("chosen")[-1].details)
