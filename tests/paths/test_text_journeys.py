"""Models that read texts, from rows to verdict and prediction, on real tiny encoders."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journey import luthier, write_rows
from pyarrow import parquet

import luthier as package
from luthier.data import Labelled, Place, Row
from luthier.errors import ConfigError, DataError
from luthier.pipeline import Tuned, evaluate_run, opened_texts, prepare
from luthier.pipeline.predicting import Follow, predict_file
from luthier.pipeline.recorded import resolved_recipe
from luthier.recipe import ReadRecipe
from tiny_encoders import write_encoder

SETTINGS: dict[str, Any] = {
    "training": {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3},
    "evaluation": {"resamples": 200},
    "runtime": {"dtype": "float32", "threads": 1},
}
THINGS = {
    "light": ("turn the lamp on", "switch the light off", "light on now", "lamp off please"),
    "music": ("play a song", "stop the music", "song louder now", "play music please"),
    "weather": ("what is the weather", "rain today", "is the sun on", "weather tomorrow please"),
}


ENDS = ("one", "two", "now", "what", "the", "a")


def intents(count: int = 60) -> list[dict[str, Any]]:
    names = list(THINGS)
    return [
        {
            "text": f"{THINGS[name][i // 3 % 4]} {ENDS[i // 12 % 6]}",
            "label": name,
            "lang": "en" if i % 2 else "de",
        }
        for i in range(count)
        for name in [names[i % 3]]
    ]


def unseen(count: int) -> list[dict[str, Any]]:
    return [{**row, "text": f"{row['text']} red {i}"} for i, row in enumerate(intents(count))]


def tags(count: int = 120) -> list[dict[str, Any]]:
    words = {"light": "lamp", "music": "song", "weather": "rain"}
    return [
        {
            "text": " ".join(
                (
                    *(words[n] for n in names),
                    ENDS[i % 6],
                    ["red", "green"][i % 2],
                    ["today", "now", "please"][i // 16 % 3],
                    ENDS[i // 8 % 6],
                )
            ),
            "labels": names,
        }
        for i in range(count)
        for names in [[n for b, n in enumerate(THINGS) if (i >> b) & 1]]
    ]


def stars(count: int = 60) -> list[dict[str, Any]]:
    words = ("awful", "bad", "fine", "good")
    return [
        {"text": f"{words[i % 4]} {THINGS['music'][i // 4 % 4]}", "label": (i % 4) + 0.5}
        for i in range(count)
    ]


def pairs(count: int = 48) -> list[dict[str, Any]]:
    colours, things = ("red", "green", "blue"), ("lamp", "kitchen", "song", "hall")
    return [
        {"anchor": f"{c} {t} {n}", "positive": f"the {t} is {c} and {n} one"}
        for c in colours
        for t in things
        for n in ("today", "tomorrow", "now", "please")
    ][:count]


def similarities(count: int = 48) -> list[dict[str, Any]]:
    texts = [t for own in THINGS.values() for t in own]
    return [
        {
            "sentence1": texts[i % 12],
            "sentence2": f"{texts[(i * 5 + 1) % 12]} {i // 12 or 'the'}",
            "score": float((i % 12) // 4 == ((i * 5 + 1) % 12) // 4),
        }
        for i in range(count)
    ]


ROWS = {
    "intents": intents(), "tags": tags(), "stars": stars(), "pairs": pairs(),
    "similarities": similarities(),
    "verdicts": [
        {"premise": f"the lamp is {c}", "hypothesis": f"the lamp is {d} {i}", "label": c == d}
        for i, c, d in [(i, ("on", "off")[i % 2], ("on", "off")[i // 2 % 2]) for i in range(40)]
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_encoder(folder / "plain")
    write_encoder(folder / "sentence", sentence="mean_tokens")
    for name, content in ROWS.items():
        write_rows(folder / f"{name}.jsonl", content)
    return folder


def tuned(folder: Path, data: str, method: Any, model: str = "sentence", **changes: Any) -> Tuned:
    settings: dict[str, Any] = {name: {**section} for name, section in SETTINGS.items()}
    settings["runtime"] |= {"workspace": folder / "workspace", "cache": folder / "cache"}
    for name, section in changes.items():
        is_kind = name in ("tuning", "name")
        settings[name] = section if is_kind else {**settings.get(name, {}), **section}
    source = {"train": folder / f"{data}.jsonl", "test_share": 0.3, **settings.pop("rows", {})}
    return package.tune(model=str(folder / model), data=source, method=method, **settings)


def report(run: Tuned) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.report.with_suffix(".json").read_text("utf-8"))
    return found


@pytest.mark.parametrize(
    ("model", "tuning"),
    [
        ("sentence", {"kind": "full"}), ("plain", {"kind": "full"}),
        ("sentence", {"kind": "lora", "rank": 4}), ("plain", {"kind": "last-layers", "count": 1}),
        ("sentence", {"kind": "head"}),
    ],
)  # fmt: skip
def test_a_classifier_is_tuned_judged_and_asked(
    folder: Path, model: str, tuning: dict[str, Any]
) -> None:
    method = {"kind": "classify", "stages": "one"}
    run = tuned(folder, "intents", method, model, tuning=tuning)
    assert run.verdict is not None
    assert run.evaluation is not None
    names = {system.name for system in run.evaluation.systems}
    assert names == {
        "most frequent label", "TF-IDF, linear", "nearest neighbours", "linear probe",
        "nearest label name", "fine-tuned",
    }  # fmt: skip
    if tuning["kind"] != "head":
        last = run.evaluation.systems[-1].estimates
        assert last[run.evaluation.primary].value == pytest.approx(1.0, abs=0.2)
    found = run.predict(["turn the lamp off", "what is the weather tomorrow"])
    by_row = {p.example_id: p for p in run.evaluation.systems[-1].predictions}
    example = run.evaluation.examples[0]
    assert isinstance(example, Labelled)
    (again,) = run.predict([example.text])
    assert again.labels == by_row[example.id].labels, "saved as it was judged"
    assert again.probabilities == pytest.approx(by_row[example.id].probabilities, abs=1e-4)
    assert all(sum(p.probabilities) == pytest.approx(1) for p in found)
    page = run.report.read_text("utf-8")
    assert "Label by label" in page
    assert "Rows learnt from" in page
    assert "per token" not in page
    card = (run.run.path("model") / "README.md").read_text("utf-8")
    assert "pipeline_tag: text-classification" in card
    assert "`light`, `music`, `weather`" in card
    assert page.count("data:image/png;base64,") == 2
    details = report(run)["details"]
    assert {s["value"] for s in details["slices"][0]["parts"]} == {"de", "en"}
    assert len(details["class_map"]["before"]) == len(run.evaluation.examples)


@pytest.mark.parametrize("tuning", ["head", "full"])
def test_few_rows_learn_in_one_stage_where_two_do_not_fit(folder: Path, tuning: str) -> None:
    method = {"kind": "classify", "head": "own" if tuning == "full" else "auto"}
    run = tuned(folder, "intents", method, rows={"limit": 24}, tuning=tuning)
    lines = {line["path"]: line["value"] for line in report(run)["recipe"]}
    assert lines["method.stages"] == "one"
    (answer,) = run.predict(["turn the lamp off"])
    assert answer.labels[0] in THINGS, "what is saved can be opened again"


def test_a_classifier_may_become_a_model_of_vectors(folder: Path) -> None:
    run = tuned(folder, "intents", {"kind": "classify", "stages": "one"}, name="first")
    other = tuned(folder, "pairs", "embed", f"../{run.run.folder.relative_to(folder.parent)}/model",
                  name="second")  # fmt: skip
    assert other.embed(["red lamp"]).shape == (1, 32)
    modules = json.loads((other.run.path("model") / "modules.json").read_text())
    assert [module["path"] for module in modules] == ["", "1_Pooling"]
    assert not (other.run.path("model") / "labels.json").exists()


def test_vectors_are_of_texts_as_long_as_they_were_judged_by(folder: Path) -> None:
    run = tuned(folder, "pairs", "embed", "plain", training={"max_length": 64})
    config = json.loads((folder / "plain" / "config.json").read_text())
    limit = config["max_position_embeddings"]
    saved = json.loads((run.run.path("model") / "sentence_bert_config.json").read_text())
    assert saved["max_seq_length"] == limit > 64
    assert run.reader.reader.max_length == limit


def test_two_texts_that_are_read_together_make_one_vector(folder: Path) -> None:
    run = tuned(folder, "verdicts", "embed", "plain")
    assert run.evaluation is not None
    predictions = run.evaluation.systems[-1].predictions
    assert {p.labels[0] for p in predictions} == {"true", "false"}, "the first text alone says none"


def test_other_rows_are_judged_beside_what_learnt_from_the_same_rows(folder: Path) -> None:
    run = tuned(folder, "intents", {"kind": "classify", "stages": "one"})
    recipe = resolved_recipe(run.run)
    other = write_rows(folder / "judged.jsonl", unseen(20))
    prepared = prepare(ReadRecipe(recipe, {}, ""), judged_on=other)
    first = prepare(ReadRecipe(recipe, {}, ""))
    assert prepared.train.examples == first.train.examples
    assert [e.place.file for e in prepared.test] == [str(other)] * 20
    rows = ROWS["intents"]
    write_rows(folder / "changed.jsonl", rows)
    run = tuned(folder, "changed", {"kind": "classify", "stages": "one"})
    write_rows(folder / "changed.jsonl", [{**row, "label": f"{row['label']}!"} for row in rows])
    with pytest.raises(ConfigError, match="has other labels by now: light, light!"):
        evaluate_run(run.run, other)


@pytest.mark.parametrize(
    ("fields", "answer", "query", "passage"),
    [
        ({"text": "a", "query": "b"}, ("a", None), ("b", None), ("a", None)),
        ({"query": "a", "passage": "b"}, None, ("a", None), ("b", None)),
        ({"text": "a", "title": "t"}, ("a", None), ("a", None), ("t\na", None)),
        ({"sentence1": "a", "sentence2": "b"}, ("a", "b"), None, None),
        ({"text": "a", "text_pair": "b"}, ("a", "b"), ("a", None), ("a", None)),
        ({"text": " "}, None, None, None),
    ],
)
def test_the_text_of_a_row_is_the_one_that_is_asked_for(
    fields: dict[str, str], answer: Any, query: Any, passage: Any
) -> None:
    row = Row(Place("f", 1), fields)
    kinds: tuple[opened_texts.Wanted, ...] = ("answer", "query", "passage")
    for wanted, expected in zip(kinds, (answer, query, passage), strict=True):
        if expected is None:
            with pytest.raises(DataError, match=r"text in one of|text is empty"):
                opened_texts.text_of(row, wanted)
        else:
            assert opened_texts.text_of(row, wanted) == expected


def test_few_rows_a_label_learn_in_two_stages(folder: Path) -> None:
    run = tuned(folder, "intents", "classify", rows={"limit": 24}, training={"epochs": 3})
    assert run.evaluation is not None
    lines = {line["path"]: line for line in report(run)["recipe"]}
    assert lines["method.stages"]["value"] == "two"
    assert "rows a label" in lines["method.stages"]["origin"]
    value = run.evaluation.systems[-1].estimates["accuracy"].value
    assert value is not None
    assert value > 0.6


def test_rows_with_several_labels_get_thresholds(folder: Path) -> None:
    run = tuned(folder, "tags", "classify", training={"epochs": 12})
    assert run.evaluation is not None
    assert run.evaluation.primary == "labels_f1"
    labels = json.loads((run.run.path("model") / "labels.json").read_text())
    assert labels["kind"] == "multi"
    assert len(labels["thresholds"]) == 3
    value = run.evaluation.systems[-1].estimates["labels_f1"].value
    assert value is not None
    assert value > 0.7
    (both,) = run.predict(["turn the lamp on and play a song"])
    assert set(both.labels) <= {"light", "music", "weather"}


def test_numbers_are_learnt_in_their_own_unit(folder: Path) -> None:
    run = tuned(folder, "stars", "classify", training={"epochs": 15, "patience": 99})
    assert run.evaluation is not None
    assert run.evaluation.primary == "absolute_error"
    first, last = (run.evaluation.systems[i].estimates["absolute_error"].value for i in (0, -1))
    assert first is not None
    assert last is not None
    assert last < 0.6 * first
    low, high = run.predict(["awful song", "good song"])
    assert low.value is not None
    assert high.value is not None
    assert low.value < high.value


def test_texts_are_labelled_two_by_two(folder: Path) -> None:
    run = tuned(folder, "verdicts", "classify", "plain")
    (answer,) = run.predict([("the lamp is on", "the lamp is on")])
    assert answer.labels[0] in ("true", "false")


@pytest.mark.parametrize(
    "method",
    [
        "embed",
        {"kind": "embed", "direction": "both", "dimensions": [8, 32]},
        {"kind": "embed", "query_prompt": "what is ", "hard_negatives": 2},
    ],
)
def test_search_is_tuned_on_pairs_and_compared_with_words(folder: Path, method: Any) -> None:
    run = tuned(folder, "pairs", method, training={"epochs": 12})
    assert run.evaluation is not None
    systems = {s.name: s.estimates["ndcg_10"].value for s in run.evaluation.systems}
    assert set(systems) == {"BM25", "TF-IDF", "model at the start", "fine-tuned"}
    before, after = systems["model at the start"], systems["fine-tuned"]
    assert before is not None
    assert after is not None
    assert after > before
    vectors = run.embed(["red lamp now"])
    assert vectors.shape == (1, 32)
    assert np.linalg.norm(vectors) == pytest.approx(1, abs=1e-4)


def test_scored_pairs_are_put_in_order(folder: Path) -> None:
    run = tuned(folder, "similarities", "embed", training={"epochs": 12})
    assert run.evaluation is not None
    assert run.evaluation.primary == "spearman"
    systems = {s.name: s.estimates["spearman"].value for s in run.evaluation.systems}
    assert set(systems) == {"TF-IDF", "model at the start", "fine-tuned"}
    before, after = systems["model at the start"], systems["fine-tuned"]
    assert before is not None
    assert after is not None
    assert after > before
    assert run.verdict is not None


def test_vectors_are_learnt_from_labels_too(folder: Path) -> None:
    run = tuned(folder, "intents", "embed")
    assert run.evaluation is not None
    value = run.evaluation.systems[-1].estimates["accuracy"].value
    assert value is not None
    assert value > 0.8


def test_files_are_predicted_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    tuned(folder, "intents", {"kind": "classify", "stages": "one"}, name="labels")
    tuned(folder, "pairs", "embed", name="vectors")
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": f"lamp on {i}"} for i in range(5)])
    place = ("--workspace", str(folder / "workspace"))
    done = luthier(tmp_path, "predict", "labels", "--input", str(texts), *place)
    assert done.code == 0, done.error
    lines = (tmp_path / "texts-labels.jsonl").read_text().splitlines()
    assert len(lines) == 5
    assert "5 rows" in done.out
    assert "GiB at most" in done.out
    assert set(json.loads(lines[0])["probabilities"]) == set(THINGS)
    for suffix in ("npy", "parquet"):
        target = tmp_path / f"vectors.{suffix}"
        done = luthier(
            tmp_path, "predict", "vectors", "--input", str(texts), "--output", str(target), *place
        )
        assert done.code == 0, done.error
    plain = np.load(tmp_path / "vectors.npy")
    table = parquet.read_table(tmp_path / "vectors.parquet")
    assert plain.shape == (5, 32)
    np.testing.assert_allclose(np.stack(table["vector"].to_numpy()), plain, rtol=1e-6)
    wrong = luthier(
        tmp_path, "predict", "labels", "--input", str(texts), "--output", "x.npy", *place
    )
    assert wrong.code == 2
    assert "accepted" in wrong.error or ".jsonl" in wrong.error
    for name, said in (("texts.jsonl", "would replace"), ("nowhere/x.jsonl", "has no folder")):
        refused = luthier(
            tmp_path, "predict", "labels", "--input", str(texts), "--output",
            str(tmp_path / name), *place,
        )  # fmt: skip
        assert refused.code == 2
        assert said in refused.error
    assert json.loads(texts.read_text().splitlines()[0]) == {"text": "lamp on 0"}
    write_rows(texts, [{"text": "lamp"}, {"body": "lamp"}])
    broken = luthier(tmp_path, "predict", "labels", "--input", str(texts), *place)
    assert broken.code == 2
    assert "texts.jsonl:2" in broken.error
    assert len((tmp_path / "texts-labels.jsonl").read_text().splitlines()) == 5, "as it was"
    assert not list(tmp_path.glob("*.part"))
    asked = luthier(tmp_path, "chat", "labels", *place)
    assert asked.code == 2
    assert "luthier predict" in asked.error
    checked = luthier(
        tmp_path, "data", "check", str(folder / "intents.jsonl"), "--set", "unwanted=labels/light",
        "--set", "only=unwanted-content", "--output", "found.json", *place,
    )  # fmt: skip
    assert checked.code == 0, checked.error
    (problem,) = json.loads((tmp_path / "found.json").read_text("utf-8"))["problems"]
    light = [i for i, row in enumerate(intents(), 1) if row["label"] == "light"]
    places = {f"{folder / 'intents.jsonl'}:{i}" for i in light}
    found = {row["place"] for row in problem["rows"]}
    assert len(found ^ places) <= 6, "as the run answers"
    none = luthier(tmp_path, "data", "check", str(texts), "--set", "unwanted=labels/rude", *place)
    assert none.code == 2
    assert "expected light, music, weather" in none.error
    # The same classifier grades what others wrote.
    asked_of = write_rows(
        tmp_path / "asked.jsonl",
        [{"prompt": "a", "completion": "lamp on 3"}, {"prompt": "b", "completion": "lamp off 4"}],
    )
    answers = write_rows(
        tmp_path / "said.jsonl",
        [{"prompt": "a", "answer": "lamp on 1"}, {"prompt": "b", "answer": "play song 2"}],
    )
    grader = '{"type": "classifier", "name": "about light", "run": "labels", "label": "light"}'
    graded = luthier(tmp_path, "evaluate", str(answers), "--data", str(asked_of), *place,
                     "--set", f"evaluation.graders=[{grader}]")  # fmt: skip
    assert graded.code == 0, graded.error
    (trial,) = (folder / "workspace" / "trials").iterdir()
    report = json.loads((trial / "report.json").read_text("utf-8"))
    on, off = report["evaluation"]["systems"][0]["scores"]["about light"]
    assert on > 0.5 > off
    for named, unknown in (("labels", "nobody"), ('"light"}', '"rude"}')):
        wrong = luthier(tmp_path, "evaluate", str(answers), "--data", str(asked_of), *place,
                        f"--set=evaluation.graders=[{grader.replace(named, unknown)}]")  # fmt: skip
        assert wrong.code == 2
        assert unknown.strip('"}') in wrong.error
    assert "evaluation.graders about light: 'rude' is no label of" in wrong.error
    other = write_rows(tmp_path / "other.jsonl", unseen(20))
    again = luthier(tmp_path, "evaluate", "labels", "--data", str(other), *place)
    assert again.code == 0, again.error
    assert "strongest baseline" in " ".join(again.out.split())
    learnt = folder / "intents.jsonl"
    refused = luthier(tmp_path, "evaluate", "labels", "--data", str(learnt), *place)
    assert refused.code == 2
    assert "rows that the run learnt from" in refused.error
    mixed = write_rows(tmp_path / "mixed.jsonl", [*unseen(3), *reversed(intents(60))])
    refused = luthier(tmp_path, "evaluate", "labels", "--data", str(mixed), *place)
    assert refused.code == 2
    assert "of 63 rows ask what the run learnt from, first" in refused.error


def test_predicting_goes_on_where_it_was_broken_off(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classify, embed = {"kind": "classify", "stages": "one"}, {
        "kind": "embed", "query_prompt": "what ", "passage_prompt": "the ",
    }  # fmt: skip
    monkeypatch.setattr(opened_texts, "AT_ONCE", 4)
    rows = [{"_id": str(i), "title": "lamp", "text": f"light on {i}"} for i in range(11)]
    source = write_rows(tmp_path / "texts.jsonl", rows)
    for data, method, ending in (
        ("intents", classify, ".jsonl"), ("pairs", embed, ".npy"), ("pairs", embed, ".parquet"),
    ):  # fmt: skip
        opened = tuned(folder, data, method, name=f"broken-off-{data}").reader
        whole, place = tmp_path / f"whole{ending}", tmp_path / f"again{ending}"
        predict_file(opened, source, whole)
        with pytest.raises(KeyboardInterrupt):
            predict_file(opened, source, place, follow=broken_off_after(6))
        assert not place.exists()
        (part,) = tmp_path.glob("again*.part")
        with part.open("ab") as file:
            file.write(b'{"la')
        done = predict_file(opened, source, place)
        assert (done.num_rows, done.num_kept) == (11, 6)
        assert place.read_bytes() == whole.read_bytes()
        with pytest.raises(KeyboardInterrupt):
            predict_file(opened, source, place, follow=broken_off_after(6))
        source.write_text(source.read_text() + "\n")  # another file now: nothing is kept
        assert predict_file(opened, source, place).num_kept == 0
        assert not list(tmp_path.glob("*.part"))
    found = predict_file(opened, source, tmp_path / "found.npy", as_passages=True)
    passages = opened.embed([f"lamp\nlight on {i}" for i in range(11)], as_passages=True)
    np.testing.assert_allclose(np.load(found.place), passages, atol=1e-6)
    asked = opened.embed([f"lamp\nlight on {i}" for i in range(11)])
    assert np.abs(passages - asked).max() > 1e-3


def broken_off_after(number: int) -> Follow:
    def follow(answers: Iterator[Any], done: int, total: int) -> Iterator[Any]:
        yield from islice(answers, number)
        raise KeyboardInterrupt

    return follow


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("lamp on", "texts: is one text; expected a list"), ([None], "text 1: is None"),
        (["lamp", " "], "text 2: is ' '"), ([("a", "b")], "text 1: is two texts"),
        ([3], "text 1: is 3"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_said_in_python_too(folder: Path, texts: Any, said: str) -> None:
    opened = tuned(folder, "intents", {"kind": "classify", "stages": "one"}, name="asked").reader
    with pytest.raises(DataError, match=said):
        opened.predict(texts)
    assert opened.predict([]) == []


def test_what_reads_two_texts_is_not_given_one(folder: Path, tmp_path: Path) -> None:
    opened = tuned(folder, "verdicts", "classify", "plain").reader
    with pytest.raises(DataError, match="text 1: is one text; expected two texts"):
        opened.predict(["the lamp is on"])
    source = write_rows(tmp_path / "texts.jsonl", [{"text": "the lamp is on"}])
    with pytest.raises(DataError, match=r"texts.jsonl:1: is one text"):
        predict_file(opened, source)
    source.write_text('{"text": null}\n')
    with pytest.raises(DataError, match=r"texts.jsonl:1: text is null; expected text"):
        predict_file(opened, source)


def test_vectors_are_cut_to_lengths_that_there_are(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"dimensions: is .*1000.*lengths up to 32"):
        tuned(folder, "pairs", {"kind": "embed", "dimensions": [1000, 32]})
    with pytest.raises(ConfigError, match="must be one of them"):
        tuned(folder, "pairs", {"kind": "embed", "dimensions": [8]})


def test_scores_that_say_nothing_are_refused(folder: Path) -> None:
    write_rows(folder / "same.jsonl", [{**row, "score": 0.5} for row in similarities()])
    with pytest.raises(DataError) as caught:
        tuned(folder, "same", "embed")
    assert "score is 0.5, as in all" in str(caught.value)


def test_thresholds_are_not_taken_from_a_handful_of_rows(folder: Path) -> None:
    run = tuned(folder, "tags", "classify", rows={"validation_share": 0.05})
    labels = json.loads((run.run.path("model") / "labels.json").read_text())
    assert labels["thresholds"] == [0.5] * 3


def test_a_preview_shows_texts_and_what_is_learnt_of_them(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for data, method, learnt in (
        ("intents", "classify", "light"), ("similarities", "embed", "1.0"), ("pairs", "embed", ""),
    ):  # fmt: skip
        rows = {"train": str(folder / f"{data}.jsonl"), "test_share": 0.3}
        settings = {"model": str(folder / "plain"), "data": rows}
        recipe.write_text(json.dumps({**settings, "method": method}), encoding="utf-8")
        done = luthier(tmp_path, "preview", "recipe.yaml", "--rows", "40")
        assert done.code == 0, done.error
        assert "[CLS]" in done.out
        assert (f"[[{learnt}]]" if learnt else "lamp") in done.out
        assert ("[[" in done.out) == bool(learnt)
        luthier(tmp_path, "preview", "recipe.yaml", "--html", "preview.html", "--rows", "40")
        page = (tmp_path / "preview.html").read_text()
        assert (f"<mark>{learnt}</mark>" if learnt else "lamp") in page


@pytest.mark.parametrize(("data", "method"), [("intents", "classify"), ("pairs", "embed")])
def test_texts_that_are_cut_are_listed_in_every_split(
    folder: Path, tmp_path: Path, data: str, method: str
) -> None:
    row = json.loads((folder / f"{data}.jsonl").read_text().splitlines()[0])
    field = "text" if data == "intents" else "anchor"
    write_rows(tmp_path / "test.jsonl", [row, {**row, field: "lamp " * 600}])
    settings = {
        "model": str(folder / "plain"), "method": method,
        "data": {"train": str(folder / f"{data}.jsonl"), "test": "test.jsonl"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings), encoding="utf-8")
    done = luthier(tmp_path, "check", "recipe.yaml")
    assert done.code == 0, done.error
    listed = [line for line in done.out.splitlines() if line.startswith("cut:")]
    assert len(listed) == 1
    assert "test.jsonl:2 (test) has 60" in listed[0]


def test_labels_that_are_wrong_are_written_for_review(folder: Path, tmp_path: Path) -> None:
    rows = intents(90)
    rows[10]["label"] = next(n for n in THINGS if n != rows[10]["label"])
    write_rows(folder / "doubtful.jsonl", rows)
    tuned(
        folder, "doubtful", {"kind": "classify", "stages": "one"}, name="doubtful",
        rows={"test_share": 0.1, "validation_share": 0.2},
    )  # fmt: skip
    target = tmp_path / "suspects.jsonl"
    place = ("--workspace", str(folder / "workspace"))
    done = luthier(tmp_path, "suspects", "doubtful", "--output", str(target), *place)
    assert done.code == 0, done.error
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert any(row["place"].endswith("doubtful.jsonl:11") for row in found)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tuning": {"kind": "lora", "quantize": "nf4"}}, "needs tuning.quantize: none"),
        ({"runtime": {"sharding": "fsdp"}}, "needs runtime.sharding: none"),
        ({"evaluation": {"metrics": ["exact"]}}, "exact cannot judge these rows"),
        ({"tuning": {"kind": "lora", "rank": 64}}, "rank 64 is larger"),
        ({"rows": {"corpus": "c.jsonl"}}, "go together"),
    ],
)
def test_what_does_not_fit_is_said(folder: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Exception, match=said) as caught:
        tuned(folder, "intents", "classify", **settings)
    assert isinstance(caught.value, package.LuthierError)


def test_rows_of_another_kind_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="holds pairs of texts, which classify cannot learn from"):
        tuned(folder, "pairs", "classify")
    with pytest.raises(DataError, match="holds labelled texts, which dpo cannot"):
        tuned(folder, "intents", "dpo")
    run = tuned(folder, "pairs", "embed")
    with pytest.raises(ConfigError, match="gives vectors, not labels"):
        run.predict(["x"])


def test_an_interrupted_classifier_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    from luthier.pipeline import prepare, tune
    from luthier.recipe import recipe_from
    from luthier.training import StepDone

    def settings(place: Path) -> dict[str, Any]:
        return {
            **SETTINGS, "model": str(folder / "sentence"), "method": "classify",
            "data": str(folder / "intents.jsonl"),
            "runtime": {**SETTINGS["runtime"], "workspace": place, "cache": folder / "cache"},
        }  # fmt: skip

    whole = tune(prepare(recipe_from(settings(tmp_path / "whole"))))
    steps = 0

    def count(event: object) -> None:
        nonlocal steps
        steps += isinstance(event, StepDone)

    cut = prepare(recipe_from(settings(tmp_path / "cut")))
    first = tune(cut, count, lambda: steps >= 5)
    assert not first.is_finished
    second = tune(prepare(recipe_from(settings(tmp_path / "cut"))))
    assert second.is_finished
    one, other = (r.run.path("model", "model.safetensors").read_bytes() for r in (whole, second))
    assert one == other


def test_a_classifier_is_asked_with_terms_swapped(folder: Path, tmp_path: Path) -> None:
    run = tuned(folder, "intents", "classify")
    write_rows(tmp_path / "rows.jsonl", [
        {"text": "turn the lamp on", "label": "light"}, {"text": "play a song", "label": "music"},
        {"text": "rain today", "label": "weather"},
    ])  # fmt: skip
    arguments = ("probe", str(run.run.folder), "--data", "rows.jsonl")
    done = luthier(tmp_path, *arguments, "--swap", "lamp=song", "--output", "changed.jsonl")
    assert done.code == 0, done.error
    assert "of 2 answers changed" in done.out
    answers = run.predict(["turn the lamp on", "turn the song on", "play a song", "play a lamp"])
    expected = sum(answers[i].labels != answers[i + 1].labels for i in (0, 2))
    assert f"{expected} of 2" in done.out
    assert len((tmp_path / "changed.jsonl").read_text().splitlines()) == expected
    for swap, said in (("lamp=lamp", "TERM=TERM"), ("cat=dog", "no row names a term")):
        wrong = luthier(tmp_path, *arguments, "--swap", swap)
        assert wrong.code == 2
        assert said in wrong.error
