"""Problems of a version are mended into a new one, and its log says how."""

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.curation import Options, VersionSource, add_files, check_rows, fix_version
from luthier.errors import ConfigError
from luthier.runs import Datasets, Version

MAIL = "Write to anna.berg@firma.de then."


def kept(tmp_path: Path, rows: list[dict[str, Any]], **held: list[dict[str, Any]]) -> Any:
    datasets = Datasets(tmp_path / "workspace")
    files = {}
    for split, content in {"train": rows, **held}.items():
        place = tmp_path / f"{split}.jsonl"
        place.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        files[split if held else None] = [place]
    version, _ = add_files(datasets, "rows", files)  # type: ignore[arg-type]
    return datasets, version


def texts(datasets: Datasets, version: Version) -> list[Any]:
    return [row.fields for row in datasets.content(version).rows()]


def rows_with_problems() -> list[dict[str, Any]]:
    rows = [{"prompt": f"say {i} in words, please", "completion": f"It is {i}."} for i in range(30)]
    rows[3] = {"prompt": "where to?", "completion": MAIL, "id": "anna.berg@firma.de"}
    rows[5] = {"prompt": "say\u200b five", "completion": "CafÃ©.", "note": "a\u200bb"}
    rows[7] = rows[2]
    rows[9] = {"prompt": "help me", "completion": "I'm sorry, but I can't help with that."}
    return rows


def test_problems_are_mended_in_a_new_version(tmp_path: Path) -> None:
    datasets, version = kept(tmp_path, rows_with_problems())
    names = ["personal-data", "exact-duplicates", "refusals", "unusual-characters", "mojibake"]
    done = fix_version(datasets, version, names)
    assert done.is_new
    assert done.touched == dict.fromkeys(names, 1)
    assert (done.version.parent, done.version.made_by) == (version.reference, "fix")
    assert done.version.details["rules"] == names
    before = [*datasets.content(version).rows()]
    assert done.version.details["ids"]["refusals"] == [before[9].id]
    after = texts(datasets, done.version)
    assert len(after) == 28
    assert after[3] == {
        "prompt": "where to?", "completion": "Write to [EMAIL] then.", "id": "anna.berg@firma.de",
    }  # fmt: skip
    assert after[5] == {"prompt": "say five", "completion": "Caf\u00e9.", "note": "ab"}
    assert texts(datasets, version) == rows_with_problems(), "nothing is changed in place"
    content = datasets.content(done.version)
    assert check_rows(VersionSource(content, done.version.reference)).problems == ()
    assert [row.origin for row in content.rows()][7].endswith("train.jsonl:9")


def test_labels_are_spelled_as_most_are_and_doubted_ones_exchanged(tmp_path: Path) -> None:
    words = {"weather": "rain sun cloud storm", "music": "song band drum chord"}
    rows = [
        {"text": f"{words[n].split()[i % 4]} {words[n].split()[i // 4 % 4]} {i}", "label": n}
        for i in range(150)
        for n in words
    ]
    rows[10]["label"] = "Weather "
    for i in (31, 61, 91, 121, 151):
        rows[i]["label"] = "weather"
    datasets, version = kept(tmp_path, rows)
    once = fix_version(datasets, version, ["label-spellings"]).version
    assert texts(datasets, once)[10]["label"] == "weather"
    done = fix_version(datasets, once, ["doubtful-labels"])
    assert done.touched["doubtful-labels"] >= 3
    after = texts(datasets, done.version)
    assert sum(after[i]["label"] == "music" for i in (31, 61, 91, 121, 151)) >= 3
    assert all(after[i] == rows[i] for i in range(30, 300) if i not in (31, 61, 91, 121, 151))


MOJIBAKE = "Smart quotes \u00e2\u20ac\u0153hello\u00e2\u20ac\x9d don\u00e2\u20ac\u2122t"


@pytest.mark.parametrize(
    "names",
    [
        ["unusual-characters", "mojibake"],
        ["mojibake", "unusual-characters"],
        ["unusual-characters"],
    ],
)
def test_characters_that_stand_for_others_are_not_lost(tmp_path: Path, names: list[str]) -> None:
    row = {"prompt": "Say\u200b it", "completion": MOJIBAKE}
    datasets, version = kept(tmp_path, [*rows_with_problems(), row])
    done = fix_version(datasets, version, names)
    said = texts(datasets, done.version)[-1]
    assert said["prompt"] == "Say it"
    right = "Smart quotes \u201chello\u201d don\u2019t"
    assert said["completion"] == (right if "mojibake" in names else MOJIBAKE)


def test_held_out_rows_stay_where_training_rows_give_them_away(tmp_path: Path) -> None:
    rows = [{"prompt": f"say {i} in words", "completion": f"It is {i}."} for i in range(30)]
    held = [{"prompt": "SAY 4 in words", "completion": "It is four."}]
    datasets, version = kept(tmp_path, rows, test=held)
    done = fix_version(datasets, version, ["leaked-questions"])
    assert done.version.splits == {"train": 29, "test": 1}
    assert rows[4] not in texts(datasets, done.version)


def test_what_is_not_there_cannot_be_mended(tmp_path: Path) -> None:
    rows = [{"prompt": f"say {i} in words", "completion": f"It is {i}."} for i in range(30)]
    rows[3] = {"prompt": "say 2 in words", "completion": "It is two."}
    rows[9] = {"prompt": "where?", "completion": MAIL}
    datasets, version = kept(tmp_path, rows)
    with pytest.raises(ConfigError, match="secrets was not found; expected personal-data"):
        fix_version(datasets, version, ["secrets"])
    with pytest.raises(ConfigError, match="conflicting-answers is for a person to mend"):
        fix_version(datasets, version, ["conflicting-answers"])
    assert len(datasets.log("rows")) == 1


def test_a_region_is_used_for_finding_and_for_masking(tmp_path: Path) -> None:
    rows = [{"prompt": "call", "completion": "Call (650) 253-0000 now."}]
    datasets, version = kept(tmp_path, rows)
    done = fix_version(datasets, version, ["personal-data"], Options(region="US"))
    assert texts(datasets, done.version)[0]["completion"] == "Call [PHONE] now."


def test_only_what_was_asked_for_is_masked(tmp_path: Path) -> None:
    key = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
    rows: list[dict[str, Any]] = [
        {"prompt": f"say {i} please", "completion": f"it is {i}."} for i in range(9)
    ]
    rows[2]["completion"] = f"{MAIL} The key is {key}."
    datasets, version = kept(tmp_path, rows)
    found = {
        rule: texts(datasets, fix_version(datasets, version, [rule]).version)[2]["completion"]
        for rule in ("secrets", "personal-data")
    }
    assert found == {
        "secrets": f"{MAIL} The key is [SECRET].",
        "personal-data": f"Write to [EMAIL] then. The key is {key}.",
    }
