"""Systems against systems: local models, endpoints and recorded answers on the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from endpoint import Body, serving
from luthier.errors import ConfigError, DataError, EvaluationError
from luthier.pipeline import try_systems
from luthier.pipeline.systems import name_of, read_answers, read_passages
from luthier.recipe import System, Trial, read_trial, trial_from
from tiny import write_model

pytestmark = pytest.mark.enable_socket
ANSWERS = {f"capital of {land}": town for land, town in
           (("France", "Paris"), ("Spain", "Madrid"), ("Italy", "Rome"), ("Peru", "Lima"),
            ("Japan", "Tokyo"), ("Chad", "N'Djamena"))}  # fmt: skip


def row(asked: str, answer: str) -> str:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("test.jsonl").write_text("\n".join(row(*pair) for pair in ANSWERS.items()))
    train = {f"town in {asked[11:]}": town for asked, town in ANSWERS.items()}
    Path("train.jsonl").write_text("\n".join(row(*pair) for pair in train.items()))
    return tmp_path


def knows(asked: Body) -> str:
    return ANSWERS.get(asked["messages"][-1]["content"], "what?")


def trial(*systems: Any, **more: Any) -> Trial:
    given = [{"model": s} if isinstance(s, str) else s for s in systems]
    return trial_from({"data": "test.jsonl", "systems": given, **more})


def test_an_endpoint_a_local_model_and_recorded_answers_are_compared(folder: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")
    write_model(folder / "tiny")
    with serving(knows) as server:
        given = trial(f"{server.url}#big", "tiny", runtime={"device": "cpu", "threads": 1})
        tried = try_systems(given)
        assert tried.result.verdict is not None
        assert tried.result.verdict.decision == "better"
        assert [s.kind for s in tried.result.systems] == ["candidate", "rival"]
        assert tried.result.systems[0].estimates["exact"].value == 1
        assert "big's exact match is 100.0 %" in tried.result.verdict.paragraph
        # The same again asks nobody, and says the same.
        before = len(server.asked)
        assert try_systems(given).result == tried.result
        assert len(server.asked) == before
    page = tried.report.read_text("utf-8")
    assert "big on test.jsonl" in page
    assert 'id="training"' not in page
    # The endpoint is gone; what it said can still be judged.
    (kept,) = tried.folder.glob("answers/big-*.jsonl")
    again = try_systems(trial(str(kept), "tiny", runtime={"device": "cpu", "threads": 1}))
    assert again.result.systems[0].scores == tried.result.systems[0].scores


def test_examples_are_put_before_the_question(folder: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")
    with serving(lambda asked: asked["messages"][1]["content"] if asked["messages"][1:] else "-"
                 ) as server:  # fmt: skip
        model = f"{server.url}#echo"
        tried = try_systems(
            trial(
                {"model": model, "shots": 1, "pick": "nearest"},
                {"model": model, "shots": 2},
                model,
                train="train.jsonl",
            )
        )
    nearest, fixed, alone = tried.result.systems
    # The nearest example asks for the town in the same land, so its answer is right.
    assert nearest.name == "echo, 1 nearest example"
    assert nearest.estimates["exact"].value == 1
    assert (fixed.name, alone.name) == ("echo, 2 examples", "echo")
    assert len({p.text for p in fixed.predictions}) == 1
    assert len(tried.result.comparisons) >= 3


def test_several_answers_are_drawn_kept_and_found_again(folder: Path) -> None:
    write_model(folder / "tiny")
    given: dict[str, Any] = {
        "samples": 3, "temperature": 1.0, "runtime": {"device": "cpu", "threads": 1},
        "evaluation": {"primary": "exact", "metrics": ["exact"], "max_new_tokens": 4},
    }  # fmt: skip
    tried = try_systems(trial("tiny", **given))
    (kept,) = tried.folder.glob("answers/*.jsonl")
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert sorted(line["draw"] for line in lines) == sorted([0, 1, 2] * 6)
    assert len({line["answer"] for line in lines}) > 6
    assert [m.name for m in tried.result.metrics] == ["exact", "exact_pass_at_3", "exact_flips"]
    again = try_systems(trial(str(kept), **given))
    assert again.result.systems[0].scores == tried.result.systems[0].scores
    with pytest.raises(ConfigError, match="at temperature 0 all are the same"):
        trial("tiny", samples=2)


def test_rows_without_an_answer_are_left_out_and_said(folder: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")
    with serving(lambda asked: 400 if "Chad" in str(asked) else knows(asked)) as server:
        tried = try_systems(trial(f"{server.url}#big", {"model": f"{server.url}#b", "name": "two"}))
        page = tried.report.read_text("utf-8")
        assert "big did not answer 1 of 6 rows, which are left out of its scores" in page
        assert tried.result.systems[0].estimates["exact"].n == 5
        server.answer = knows
        whole = try_systems(trial(f"{server.url}#big", {"model": f"{server.url}#b", "name": "two"}))
        assert whole.result.systems[0].estimates["exact"].n == 6


def test_rows_that_training_rows_give_away_are_refused_or_stamped(folder: Path) -> None:
    with Path("train.jsonl").open("a") as file:
        file.write("\n" + row("capital of  PERU", "Lima"))
    Path("a.jsonl").write_text(json.dumps({"id": "test:1", "answer": "Paris"}))
    with pytest.raises(ConfigError, match=r"1 of 6 rows ask what training rows ask"):
        try_systems(trial("a.jsonl", train="train.jsonl"))
    tried = try_systems(trial("a.jsonl", train="train.jsonl", overlap="report"))
    assert "1 of 6 rows ask what training rows ask" in tried.report.read_text("utf-8")
    assert tried.result.verdict is None


def test_logs_of_batches_are_answers_too(folder: Path) -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "Paris"}}], "model": "m"}
    asked = {"messages": [{"role": "user", "content": "capital of France"}]}
    line = {"custom_id": "x", "request": {"body": asked}, "response": {"body": body}}
    Path("log.jsonl").write_text(json.dumps({"id": "1", "object": "chat.completion", **asked,
                                             **body}) + "\n" + json.dumps(line))  # fmt: skip
    found = list(read_answers(Path("log.jsonl")))
    assert "Paris" in [answer.prediction.text for answer in found]
    assert any(answer.asked for answer in found)


def test_prompts_find_their_answers(folder: Path) -> None:
    Path("a.jsonl").write_text(json.dumps({"prompt": "capital of  France", "answer": "Paris"}))
    (answer,) = read_answers(Path("a.jsonl"))
    assert answer.asked == "user:capital of france"
    assert answer.prediction.text == "Paris"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "x"}', r"bad.jsonl:1 has the fields question; expected a text under"),
        ('{"answer": "x"}', r"bad.jsonl:1 has the fields answer; .* messages, prompt or id"),
        ("[1]", r"bad.jsonl:1 is a JSON list"),
        ("", "is empty"),
    ],
)
def test_files_that_hold_no_answers_are_refused_with_their_lines(
    folder: Path, line: str, said: str
) -> None:
    Path("bad.jsonl").write_text(line)
    with pytest.raises(DataError, match=said):
        try_systems(trial("bad.jsonl"))


def test_answers_to_other_rows_are_refused(folder: Path) -> None:
    Path("other.jsonl").write_text('{"id": "elsewhere", "answer": "x"}')
    with pytest.raises(EvaluationError, match="no row of 6 is among what was answered"):
        try_systems(trial("other.jsonl"))


def test_a_file_of_systems_is_read_with_its_lines(folder: Path) -> None:
    Path("sub").mkdir()
    Path("sub/docs").mkdir()
    Path("sub/a.jsonl").write_text("{}")
    Path("sub/s.yaml").write_text(
        "data: ../test.jsonl\ntrain: ../train.jsonl\nsystems:\n  - model: a.jsonl\n"
        "  - model: tiny\n    documents: docs\n    shots: 2\nevaluation:\n  primary: exact\n"
    )
    read = read_trial(Path("sub/s.yaml"), ["evaluation.limit=3"])
    assert read.systems[0].model == "sub/a.jsonl"
    assert read.systems[1].documents == Path("sub/docs")
    assert (read.data, read.evaluation.limit) == (Path("sub/../test.jsonl"), 3)
    Path("sub/s.yaml").write_text("data: t.jsonl\nsystems:\n  - model: m\n    shotz: 2\n")
    with pytest.raises(ConfigError, match=r"s.yaml:4: there is no setting systems.shotz; did you"):
        read_trial(Path("sub/s.yaml"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"systems": [{"model": "m", "shots": 2}]}, "train names no rows to take"),
        ({"systems": []}, "systems"),
        ({"systems": [{"model": "a.jsonl"}, {"model": "a.jsonl"}]}, "two are called a.jsonl"),
        ({"systems": [{"model": "run:nowhere"}]}, "nowhere"),
        ({"systems": [{"model": "http://host/v1"}]}, "#MODEL"),
        ({"systems": [{"model": "a.jsonl", "instructions": "x"}]}, "is given a prompt"),
        ({"systems": [{"model": "tiny", "documents": "none"}]}, "none: is no folder"),
    ],
)
def test_what_cannot_be_judged_is_said_before_anything_is_asked(
    folder: Path, given: dict[str, Any], said: str
) -> None:
    Path("a.jsonl").write_text('{"id": "test:1", "answer": "x"}')
    with pytest.raises((ConfigError, DataError), match=said):
        try_systems(trial_from({"data": "test.jsonl", **given}))


def test_passages_of_a_folder_never_come_from_outside(folder: Path) -> None:
    docs = folder / "docs"
    (docs / "deep").mkdir(parents=True)
    (folder / "secret.txt").write_text("secret")
    (docs / "link.txt").symlink_to(folder / "secret.txt")
    (docs / "deep" / "one.md").write_text("one")
    (docs / "two.bin").write_text("two")
    assert list(read_passages(docs)) == ["deep/one.md\none"]


def test_names_say_what_tells_systems_apart() -> None:
    assert name_of(System(model="http://h/v1#gpt", shots=1)) == "gpt, 1 example"
    assert name_of(System(model="org/model", documents=Path("d"))) == "org/model, 3 passages"
    assert name_of(System(model="x", name="mine", shots=3)) == "mine"
    assert name_of(System(model="x", instructions="a")) != name_of(
        System(model="x", instructions="b")
    )


def test_graders_judge_and_other_scores_ask_nobody_again(folder: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")
    check = {"type": "string_check", "name": "right", "input": "{{sample.output_text}}",
             "reference": "{{item.messages[1].content}}", "operation": "eq"}  # fmt: skip
    scored = {"type": "score_model", "name": "liked", "model": "judge", "input": [
        {"role": "user", "content": "{{sample.output_text}}"}]}  # fmt: skip

    def answer(asked: Body) -> str:
        if asked["model"] != "judge":
            return knows(asked)
        return "hm" if "Lima" in str(asked) else '{"result": 0.5}'

    with serving(answer) as server:
        prices = {"input_price": 2, "output_price": 10}
        big = {"model": f"{server.url}#big", **prices}
        other = {"model": f"{server.url}#small", "name": "other"}
        judge = {"model": f"{server.url}#judge"}
        asked = {"metrics": ["exact", "cost"], "graders": [check, scored], "judge": judge}
        tried = try_systems(trial(big, other, evaluation=asked))
        first, second = tried.result.systems
        assert tried.result.primary == "right"
        assert first.scores["right"] == (1.0,) * 6
        assert sorted(first.scores["liked"], key=str) == [0.5] * 5 + [None]
        # Each answer: 7 tokens asked at 2, 1 word at 10 a million.
        assert first.scores["cost"] == (24.0,) * 6
        assert second.estimates["cost"].value is None
        assert first.unscored == {"liked": "1 of 6: the judge gave no number: 'hm'"}
        page = tried.report.read_text("utf-8")
        assert "liked could not judge 1 of 6" in page
        before = len(server.asked)
        again = try_systems(trial(big, other, evaluation={"metrics": ["chrf"], "judge": judge}))
        assert again.result.primary == "chrf"
        assert len(server.asked) == before


def test_answers_that_were_given_before_a_scorer_raised_are_kept(folder: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")
    Path("own.py").write_text("def broken(sample, item):\n    return 1 / 0\n")
    grader = {"type": "function", "name": "own", "path": "own:broken"}
    with serving(knows) as server:
        with pytest.raises(EvaluationError, match=r"none of 6 answers .*ZeroDivisionError"):
            try_systems(trial(f"{server.url}#big", evaluation={"graders": [grader]}))
        before = len(server.asked)
        assert before == 6
        Path("own.py").unlink()
        fixed = {**grader, "path": "fixed:works"}
        Path("fixed.py").write_text("def works(sample, item):\n    return 2\n")
        tried = try_systems(trial(f"{server.url}#big", evaluation={"graders": [fixed]}))
        assert tried.result.systems[0].estimates["own"].value == 2
        assert len(server.asked) == before


def test_a_judge_prefers_answers_and_the_report_shows_it(folder: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")

    def answer(asked: Body) -> str:
        said = asked["messages"][-1]["content"]
        if asked["model"] == "small":
            return "I do not know"
        if asked["model"] == "big":
            return knows(asked)
        after_a = said.partition("answer A>\n")[2]
        return '{"better": "B"}' if after_a.startswith("I do not") else '{"better": "A"}'

    with serving(answer) as server:
        big, small, wise = (f"{server.url}#{name}" for name in ("big", "small", "wise"))
        asked = {"metrics": ["chrf"], "primary": "judge", "judge": {"model": wise}}
        tried = try_systems(trial(big, small, evaluation=asked))
        (duel,) = tried.result.duels
        assert duel.preferred.won == 6
        assert duel.consistency.value == 1
        assert tried.result.verdict is not None
        assert tried.result.verdict.decision == "better"
        page = tried.report.read_text("utf-8")
        assert "What the judge preferred" in page
        assert "wise saw both answers" in page
        before = len(server.asked)
        assert try_systems(trial(big, small, evaluation=asked)).result == tried.result
        assert len(server.asked) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judge": {"model": "ftp://host#m"}}, "http"),
        ({"primary": "judge"}, "judge.model names none"),
        ({"graders": [{"type": "function", "name": "x", "path": "none_such:f"}]}, "imported"),
    ],
)
def test_judges_that_cannot_be_are_refused_before_anything_is_asked(
    folder: Path, settings: Any, said: str
) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")
    with serving(knows) as server:
        with pytest.raises(ConfigError, match=said):
            try_systems(trial(f"{server.url}#big", evaluation=settings))
        assert not server.asked


def test_another_model_in_the_same_place_is_asked_anew(folder: Path) -> None:
    write_model(folder / "tiny")
    asked = trial("tiny", runtime={"device": "cpu", "threads": 1})
    first = try_systems(asked)
    assert try_systems(asked).folder == first.folder
    write_model(folder / "tiny", seed=5)
    second = try_systems(asked)
    assert second.folder != first.folder
    losses = [t.result.systems[0].predictions[0].target_loss for t in (first, second)]
    assert losses[0] != losses[1]
