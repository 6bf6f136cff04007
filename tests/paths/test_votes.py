"""People vote in a terminal on a trial's answers; votes are kept, counted and become rows."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from luthier.cli import app
from luthier.data import read_dataset
from luthier.pipeline import try_systems
from luthier.recipe import Data, trial_from

runner = CliRunner()


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    asked = [f"question number {i}" for i in range(6)]
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "yes"}]}
        for q in asked
    ]
    Path("test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("good", "poor"):
        lines = [
            {"messages": [{"role": "user", "content": q}], "answer": f"a {name} answer"}
            for q in asked
        ]
        Path(f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    systems = [{"model": "good.jsonl"}, {"model": "poor.jsonl"}]
    tried = try_systems(trial_from({"data": "test.jsonl", "systems": systems}))
    return tried.folder.name


def answers(output: str) -> list[str]:
    """Which side the good answer stood on, ballot by ballot."""
    found = []
    for ballot in output.split(" of 6")[1:]:
        found.append("l" if ballot.index("a good") < ballot.index("a poor") else "r")
    return found


def test_votes_are_cast_kept_and_counted(trial: str) -> None:
    # The first look, to see the sides: nothing is chosen.
    seen = runner.invoke(app, ["review", trial, "--rater", "ann"], input="s\n" * 6)
    assert seen.exit_code == 0, seen.output
    assert "good.jsonl" not in seen.output
    keys = answers(seen.output)
    assert len(keys) == 6
    cast = runner.invoke(
        app, ["review", trial, "--rater", "ann"],
        input=f"{keys[0]}\nx\n{keys[1]}\nc\nyes, indeed\nb\nq\n",
    )  # fmt: skip
    assert cast.exit_code == 0, cast.output
    # What was voted on does not come again.
    rest = runner.invoke(app, ["review", trial, "--rater", "ann"], input="q\n")
    assert "1 of 3" in rest.output
    counted = runner.invoke(
        app, ["votes", trial, "--preferences", "p.jsonl", "--corrections", "c.jsonl"]
    )
    assert counted.exit_code == 0, counted.output
    said = " ".join(counted.output.split())
    assert "good.jsonl against poor.jsonl: preferred in 2 of 3 rows" in said
    assert "1 votes found both bad" in said
    assert "to be judged on other rows" in said
    preferences = read_dataset(Data(train=Path("p.jsonl"), validation_share=0, test_share=0))
    assert not preferences.findings
    assert [e.target.content for e in preferences.dataset.train] == ["a good answer"] * 2
    corrections = read_dataset(Data(train=Path("c.jsonl"), validation_share=0, test_share=0))
    assert [e.target.content for e in corrections.dataset.train] == ["yes, indeed"]


def test_what_cannot_be_compared_is_said(trial: str) -> None:
    for arguments, said in (
        (["votes", trial], "holds no vote"),
        (["review", "nothing-there"], "nothing-there"),
        (["review", trial, "--against", "somebody"], "somebody"),
    ):
        found = runner.invoke(app, arguments)
        assert found.exit_code != 0
        assert said in str(found.exception)
