"""A learning curve: the same task from some of its rows, then from all."""

import json
from pathlib import Path

import pytest
from journey import luthier, rows, write_rows, write_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curve")
    write_task(folder, name="counting", data={"train": "rows.jsonl", "test_share": 0.3})
    write_rows(folder / "rows.jsonl", rows(70))
    return folder


def runs(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(luthier(folder, "runs", "list", "--json").out)
    return found


def test_parts_are_learnt_from_and_judged_on_the_same_rows(folder: Path) -> None:
    first = luthier(folder, "train", "recipe.yaml")
    assert first.code == 0, first.error
    done = luthier(folder, "curve", "recipe.yaml", "--set", "evaluation.primary=loss",
                   "--set", "evaluation.metrics=[loss]")  # fmt: skip
    assert done.code == 0, done.error
    names = [record["name"] for record in runs(folder)]
    assert len(names) == 4
    (place,) = (folder / "luthier-workspace" / "curves").iterdir()
    found = json.loads((place / "curve.json").read_text("utf-8"))
    sizes = [point["num_rows"] for point in found["points"]]
    assert sizes[0] == round(0.25 * sizes[2])
    assert sizes[1] == round(0.5 * sizes[2])
    values = [point["estimate"]["value"] for point in found["points"]]
    gain = found["last_gain"]
    assert gain["difference"] == pytest.approx(values[2] - values[1])
    assert found["doubled"]["value"] <= values[2]
    said = " ".join(done.out.split())
    assert f"If it goes on like this, {2 * sizes[2]:,} rows bring it to about" in said
    page = (place / "curve.html").read_text("utf-8")
    assert "Learning curve" in page
    assert page.count("<circle") == 4
    again = luthier(folder, "curve", "recipe.yaml", "--set", "evaluation.primary=loss",
                    "--set", "evaluation.metrics=[loss]")  # fmt: skip
    assert again.code == 0
    assert len(runs(folder)) == 4, "nothing was made again"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--share", "2"], "--share: is 2; expected two shares or more, each to 1"),
        (["--share", "0.5"], "--share: are 1; expected two shares or more"),
        (["--share", "0.1", "--share", "1"], "give larger shares"),
    ],
)
def test_shares_that_say_nothing_are_refused(folder: Path, arguments: list[str], said: str) -> None:
    done = luthier(folder, "curve", "recipe.yaml", *arguments)
    assert done.code == 2
    assert said in " ".join(done.error.split()), done.error
