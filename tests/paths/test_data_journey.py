"""Datasets from the command line: versions are made, compared, learnt from, and not forgotten."""

import json
from pathlib import Path

import pytest
import yaml
from journey import luthier, write_rows

from tiny_encoders import write_encoder

THINGS = {"light": "lamp on {}", "music": "song {} please"}
WORDS = ("one", "two", "now", "what", "the", "red", "green", "today")


def rows(start: int, number: int) -> list[dict[str, object]]:
    return [
        {"text": THINGS[name].format(f"{WORDS[i % 8]} {WORDS[i // 8 % 8]}"), "label": name}
        for i in range(start, start + number)
        for name in THINGS
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "train.jsonl", rows(0, 24))
    write_rows(tmp_path / "held.jsonl", rows(40, 8))
    write_rows(tmp_path / "more.jsonl", rows(30, 4))
    return tmp_path


def test_versions_are_added_compared_tagged_and_shown(folder: Path) -> None:
    done = luthier(folder, "data", "add", "things", "train.jsonl", "--test", "held.jsonl")
    assert done.code == 0, done.error
    assert "things@1  64 rows (48 train, 16 test)" in done.out
    again = luthier(folder, "data", "add", "things", "train.jsonl", "--test", "held.jsonl")
    assert "things@1 holds exactly these rows already" in again.out
    more = luthier(folder, "data", "add", "things@1", "more.jsonl")
    assert "things@2  72 rows" in more.out
    assert luthier(folder, "data", "tag", "things@1", "first").code == 0
    difference = luthier(folder, "data", "diff", "things@first", "things")
    assert "8 rows added, 0 removed, 0 edited" in difference.out
    log = json.loads(luthier(folder, "data", "log", "things", "--json").out)
    assert [(v["number"], v["parent"]) for v in log] == [(2, "things@1"), (1, "")]
    assert (
        "first" in luthier(folder, "data", "list").out
        or "things@2" in luthier(folder, "data", "list").out
    )
    shown = luthier(folder, "data", "show", "things@1")
    assert "train.jsonl:1" in shown.out
    ids = json.loads(luthier(folder, "data", "diff", "things@1", "things@2", "--json").out)
    row = json.loads(luthier(folder, "data", "show", "things", "--row", ids["added"][0][:10]).out)
    assert row["fields"] == rows(30, 4)[0]
    assert row["origin"] == "more.jsonl:1"
    wrong = luthier(folder, "data", "show", "things@9")
    assert wrong.code == 2
    assert "expected 1, 2, first" in wrong.error


def test_a_run_learns_from_a_version_and_keeps_it(folder: Path) -> None:
    write_encoder(folder / "model", sentence="mean_tokens")
    luthier(folder, "data", "add", "things", "train.jsonl", "--test", "held.jsonl")
    recipe = {
        "name": "things", "model": "./model", "data": "dataset:things",
        "method": {"kind": "classify", "stages": "one"}, "training": {"epochs": 1},
        "evaluation": {"resamples": 200}, "runtime": {"dtype": "float32", "threads": 1},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    done = luthier(folder, "train", "recipe.yaml")
    assert done.code == 0, done.error
    (record,) = (folder / "luthier-workspace" / "runs").glob("*/run.json")
    files = json.loads(record.read_text())["data_files"]
    (version,) = json.loads(luthier(folder, "data", "log", "things", "--json").out)
    assert files == {"dataset:things@1": version["sha256"]}
    report = json.loads(record.with_name("report.json").read_text())
    assert len(report["evaluation"]["examples"]) == 16 if "examples" in report["evaluation"] else 1
    refused = luthier(folder, "data", "delete", "things@1")
    assert refused.code == 2
    assert "runs were tuned on" in refused.error
    broken = write_rows(folder / "broken.jsonl", [*rows(0, 3), {"text": "", "label": "light"}])
    luthier(folder, "data", "add", "broken", broken.name)
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({**recipe, "data": "dataset:broken"}), encoding="utf-8"
    )
    said = luthier(folder, "train", "recipe.yaml")
    assert said.code == 2
    assert "broken@1:7 text is empty" in said.error


def test_what_is_wrong_is_found_shown_and_mended(folder: Path) -> None:
    wrong: list[dict[str, object]] = [
        *rows(0, 24),
        *rows(0, 1),
        {"text": "lamp on, says anna.berg@firma.de", "label": "light"},
    ]
    write_rows(folder / "wrong.jsonl", wrong)
    done = luthier(
        folder, "data", "check", "wrong.jsonl", "--output", "page.html", "--output", "r.json"
    )
    assert done.code == 0, done.error
    assert "warning: 2 rows saying what an earlier row says  [exact-duplicates]" in done.out
    assert "mend it: luthier data fix NAME exact-duplicates" in done.out
    assert "luthier data add NAME wrong.jsonl" in done.out
    assert "anna" not in done.out
    assert "1 row with personal data" in (folder / "page.html").read_text(encoding="utf-8")
    report = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    assert {p["name"]: p["num_rows"] for p in report["problems"] if p["severity"] == "warning"} == {
        "exact-duplicates": 2, "personal-data": 1,
    }  # fmt: skip
    assert report["num_rows"] == 51
    luthier(folder, "data", "add", "things", "wrong.jsonl")
    mended = luthier(folder, "data", "fix", "things", "exact-duplicates", "personal-data")
    assert "things@2  49 rows" in mended.out
    again = luthier(folder, "data", "check", "things")
    assert "exact-duplicates" not in again.out
    assert "personal-data" not in again.out
    nothing = luthier(folder, "data", "fix", "things", "secrets")
    assert nothing.code == 2
    assert "things@2: secrets was not found" in nothing.error


def test_a_test_that_is_given_away_ends_with_an_error(folder: Path) -> None:
    write_rows(folder / "held.jsonl", rows(0, 2))
    done = luthier(folder, "data", "check", "train.jsonl", "--test", "held.jsonl")
    assert done.code == 1
    assert "error: 4 rows to learn from, asking what held-out rows ask" in done.out
    for arguments, said in (
        (["nowhere.jsonl"], "nowhere.jsonl: does not exist"),
        (["nothing"], "there is no dataset 'nothing'"),
        (["train.jsonl", "--set", "only=twins"], "expected format, overlap"),
        (["train.jsonl", "--set", "alike=2"], "expected 0.3 to 0.99"),
        (["train.jsonl", "--set", "alike=much"], "expected a number"),
        (["train.jsonl", "--set", "likeness=1"], "expected only=..., skip=..., alike=..."),
        (["train.jsonl", "--set", "model=nowhere"], "nowhere"),
        (["train.jsonl", "--output", "page.pdf"], "expected .html or .json"),
    ):
        wrong = luthier(folder, "data", "check", *arguments)
        assert wrong.code == 2, arguments
        assert said in wrong.error


def test_lengths_are_told_in_tokens_of_a_model(folder: Path) -> None:
    write_encoder(folder / "model")
    done = luthier(
        folder, "data", "check", "train.jsonl", "--output", "r.json",
        "--set", "model=model", "--set", "only=lengths,labels",
    )  # fmt: skip
    assert done.code == 0, done.error
    lengths = json.loads((folder / "r.json").read_text(encoding="utf-8"))["lengths"]
    assert lengths["unit"] == "tokens"
    assert lengths["longest"] < 12


def test_a_model_of_texts_compares_rows(folder: Path) -> None:
    write_encoder(folder / "model", sentence="mean_tokens")
    model = ("--set", "embedder=model", "--set", "meaning=0.3")
    texts = ("what now", "the red lamp on green", "song two today please")
    write_rows(folder / "twice.jsonl", [{"text": text, "label": "a"} for text in texts])
    luthier(folder, "data", "add", "things", "twice.jsonl")
    done = luthier(folder, "data", "check", "things", "--set", "only=overlap", *model)
    assert done.code == 0, done.error
    assert "reworded-duplicates --set embedder=model --set meaning=0.3" in done.out
    assert "things@1:1 (twice.jsonl:1), by a cosine of 0." in done.out
    plain = luthier(folder, "data", "select", "things", "--set", "sample=diverse",
                    "--set", "limit=2", "--set", "embedder=model")  # fmt: skip
    assert "2 rows" in plain.out, plain.error
    parted = luthier(folder, "data", "split", "things@1", *model, "--test", "0.5")
    assert parted.code == 0, parted.error
    for settings, error in (
        (["embedder=nowhere"], "nowhere"),
        (["unwanted=light"], "expected a classifier's run and one of its labels"),
        (["unwanted=nobody/light"], "nobody"),
    ):
        wrong = luthier(folder, "data", "check", "things", "--set", *settings)
        assert wrong.code == 2
        assert error in wrong.error


def test_rows_are_parted_chosen_and_mixed(folder: Path) -> None:
    luthier(folder, "data", "add", "things", "train.jsonl")
    parted = luthier(folder, "data", "split", "things", "--test", "0.25", "--by", "label",
                     "--set", "alike=1")  # fmt: skip
    assert parted.code == 0, parted.error
    assert "things@2  " in parted.out
    assert "12 test" in parted.out
    chosen = luthier(folder, "data", "select", "things", "--where", "label == 'music'",
                     "--set", "name=songs", "--set", "limit=10")  # fmt: skip
    assert "songs@1  10 rows" in chosen.out, chosen.error
    luthier(folder, "data", "add", "more", "more.jsonl")
    mixed = luthier(folder, "data", "mix", "both", "songs=1", "more=3", "--set", "size=20")
    assert mixed.code == 0, mixed.error
    assert "5 of songs@1, 15 of more@1" in mixed.out
    log = json.loads(luthier(folder, "data", "log", "both", "--json").out)
    assert log[0]["made_by"] == "mix"
    for arguments, said in (
        (["split", "things", "--by", "person"], "expected hash, label"),
        (["split", "things", "--test", "1.5"], "shares below 1"),
        (["select", "things", "--where", "label ="], "is no expression"),
        (["select", "things", "--set", "limit=many"], "expected a number"),
        (["select", "things", "--set", "most=3"], "expected limit=..."),
        (["mix", "both", "songs=much"], "expected a number"),
        (["mix", "both", "nothing"], "there is no dataset 'nothing'"),
    ):
        wrong = luthier(folder, "data", *arguments)
        assert wrong.code == 2, arguments
        assert said in wrong.error


def test_answered_requests_become_rows(folder: Path) -> None:
    log = [
        {"id": f"x{i}", "request": {"messages": [{"role": "user", "content": f"Why {i}?"}]},
         "response": {"choices": [{"message": {"role": "assistant", "content": f"So {i}."}}]}}
        for i in range(4)
    ]  # fmt: skip
    write_rows(folder / "log.jsonl", [*log, {"other": 1}])
    done = luthier(folder, "data", "import", "waiting", "log.jsonl")
    assert done.code == 0, done.error
    assert "left out: log.jsonl:5 has the fields other" in done.out
    assert "waiting@1  4 candidates: 4 new" in done.out
    taken = luthier(folder, "data", "accept", "waiting", "support", "--where", "'1' in log_id")
    assert "support@1  1 rows: 1 accepted, 0 corrected, 0 rejected" in taken.out, taken.error
    assert "3 wait in waiting@2" in taken.out
    for arguments, said in (
        (["import", "waiting", "train.jsonl"], "hold no request with an answer"),
        (["accept", "waiting", "support"], "needs --where or --decisions"),
        (["accept", "waiting", "support", "--where", "log_id == 'x9'"], "nothing is accepted"),
    ):
        wrong = luthier(folder, "data", *arguments)
        assert wrong.code == 2, arguments
        assert said in wrong.error


def test_rows_are_paged_searched_and_shown_by_what_is_wrong(folder: Path) -> None:
    own: list[dict[str, object]] = [
        *rows(0, 8),
        {"text": "lamp \x1b[2J on, says anna.berg@firma.de", "label": "light"},
    ]
    write_rows(folder / "own.jsonl", own)
    luthier(folder, "data", "add", "things", "own.jsonl")

    def browsed(*said: str) -> str:
        typed = "".join(f"{line}\n" for line in said)
        done = luthier(folder, "data", "browse", "things", typed=typed)
        assert done.code == 0, done.error
        return done.out

    assert "1-5 of 17" in browsed()
    assert "6-10 of 17" in browsed("n")
    assert "16-17 of 17" in browsed("n", "n", "n", "n", "q")
    assert "1-5 of 17" in browsed("n", "p").rpartition("things@1")[2]
    assert "1-5 of 8" in browsed("/song")
    assert "1-1 of 1" in browsed("w label == 'light' and 'anna' in text")
    assert "0-0 of 0" in browsed("/nothing")
    assert "17-17 of 17" in browsed("17")
    out = browsed("17")
    assert "\x1b" not in out
    assert "\u241b[2J" in out
    found = browsed("f")
    assert "1 row with" in found
    assert "1-1 of 1" in found
    for said, error in (
        ("99", "expected 1 to 17"),
        ("w label ==", "is no expression"),
        ("x", "enter or n"),
    ):
        assert error in browsed(said)


def test_names_with_dots_are_datasets(folder: Path) -> None:
    assert luthier(folder, "data", "add", "my.data", "train.jsonl").code == 0
    assert "48 rows" in luthier(folder, "data", "check", "my.data").out
    assert luthier(folder, "data", "tag", "my.data", "v1.2").code == 0
    assert "48 rows" in luthier(folder, "data", "check", "my.data@v1.2").out


def test_rows_are_chosen_by_how_a_run_learnt_them(folder: Path) -> None:
    write_encoder(folder / "model", sentence="mean_tokens")
    luthier(folder, "data", "add", "things", "train.jsonl", "--test", "held.jsonl")
    recipe = {
        "name": "things", "model": "./model", "data": "dataset:things",
        "method": {"kind": "classify", "stages": "one"},
        "training": {"epochs": 3, "order": "given"},
        "evaluation": {"resamples": 200}, "runtime": {"dtype": "float32", "threads": 1},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert luthier(folder, "train", "recipe.yaml").code == 0
    done = luthier(folder, "data", "map", "things", "--output", "map.png")
    assert done.code == 0, done.error
    assert "3 passes" in done.out
    assert (folder / "map.png").read_bytes()[:4] == b"\x89PNG"
    told = json.loads(luthier(folder, "data", "map", "things", "--json").out)
    easy = sum(row["learning"] == "easy" for row in told.values())
    chosen = luthier(
        folder, "data", "select", "things", "--where", "learning == 'easy'", "--set", "run=things",
        "--set", "split=train", "--set", "order=loss", "--set", "name=easy",
    )  # fmt: skip
    assert chosen.code == 0, chosen.error
    (version,) = json.loads(luthier(folder, "data", "log", "easy", "--json").out)
    assert version["splits"]["train"] >= easy > 0
    assert version["splits"]["test"] == 16
    refused = luthier(folder, "data", "map", "things", "--output", "map.svg")
    assert refused.code == 2
    assert ".png" in refused.error
