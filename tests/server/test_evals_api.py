"""Evals and graders: judged like OpenAI's, with intervals and a comparison beside."""

import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from running import running

from luthier.evaluation.sandbox import cannot_shut_in
from luthier.evaluation.statistics import wilson
from luthier.pipeline import Engines, Readers
from luthier.recipe import Runtime
from own_service import Service
from tiny_encoders import write_encoder

pytestmark = pytest.mark.enable_socket
BASE = "tiny/tiny-model"
EQUAL: Any = {"type": "string_check", "name": "equal", "operation": "eq",
              "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}  # fmt: skip
ALIKE: Any = {"type": "text_similarity", "name": "alike", "evaluation_metric": "rouge_l",
              "input": "{{sample.output_text}}", "reference": "{{item.answer}}",
              "pass_threshold": 0.5}  # fmt: skip
SCHEMA: dict[str, Any] = {"type": "object", "required": ["answer"],
          "properties": {"answer": {"type": "string"}}}  # fmt: skip
OVER = ("completed", "failed", "canceled")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    service = Service(tmp_path_factory.mktemp("service"))
    runtime = Runtime.model_validate({"device": "cpu"})
    engines = Engines(runtime, slots=4)
    more = {"tiny/vectors": write_encoder(service.folder / "vectors")}
    with (
        running(
            service, engines, Readers(runtime), more, needs_key=False, embedder="tiny/vectors"
        ) as address,
        OpenAI(base_url=address, api_key="none", max_retries=0) as asking,
    ):
        yield asking
    engines.close()


def new_eval(client: OpenAI, *criteria: Any) -> Any:
    return client.evals.create(
        name="names", data_source_config={"type": "custom", "item_schema": SCHEMA},
        testing_criteria=criteria or (EQUAL, ALIKE),
    )  # fmt: skip


def given(answers: list[str], wanted: str = "yes") -> Any:
    content = [{"item": {"answer": wanted, "place": i}, "sample": {"output_text": answer}}
               for i, answer in enumerate(answers)]  # fmt: skip
    return {"type": "jsonl", "source": {"type": "file_content", "content": content}}


def wait(client: OpenAI, run: Any) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        run = client.evals.runs.retrieve(run.id, eval_id=run.eval_id)
        if run.status in OVER:
            return run
        time.sleep(0.1)
    raise AssertionError(run)


def test_answers_that_are_there_are_judged(client: OpenAI) -> None:
    made = new_eval(client)
    assert made.testing_criteria[0].name == "equal"
    answers = ["yes"] * 30 + ["no"] * 10
    run = wait(client, client.evals.runs.create(made.id, data_source=given(answers)))
    assert run.result_counts.model_dump() == {"total": 40, "passed": 30, "failed": 10, "errored": 0}
    first = run.per_testing_criteria_results[0]
    assert (first.testing_criteria, first.passed, first.failed) == ("equal", 30, 10)
    interval = run.model_extra["confidence_interval"]["equal"]
    wanted = wilson(30, 40, 0.95)
    assert (interval["low"], interval["high"]) == pytest.approx((wanted.low, wanted.high))
    items = list(client.evals.runs.output_items.list(run.id, eval_id=made.id, status="fail"))
    assert {item.datasource_item_id for item in items} == set(range(30, 40))
    one = client.evals.runs.output_items.retrieve(items[0].id, eval_id=made.id, run_id=run.id)
    assert [result.passed for result in one.results] == [False, False]


def test_a_run_is_compared_with_the_one_before_row_by_row(client: OpenAI) -> None:
    made = new_eval(client)
    before = wait(client, client.evals.runs.create(
        made.id, data_source=given(["yes"] * 20 + ["no"] * 20)))  # fmt: skip
    assert before.model_extra["compared_to"] is None
    run = wait(client, client.evals.runs.create(
        made.id, data_source=given(["yes"] * 38 + ["no"] * 2)))  # fmt: skip
    found = run.model_extra["compared_to"]
    assert found["run_id"] == before.id
    assert found["decision"] == "better"
    equal = found["criteria"]["equal"]
    assert equal["difference"] == pytest.approx(18 / 40)
    assert equal["low"] > 0
    other = wait(client, client.evals.runs.create(
        made.id, data_source=given(["yes"] * 40, wanted="no")))  # fmt: skip
    assert other.model_extra["compared_to"] is None


def test_the_page_is_for_who_has_its_address(client: OpenAI) -> None:
    made = new_eval(client)
    run = wait(client, client.evals.runs.create(made.id, data_source=given(["yes", "no"])))
    with urllib.request.urlopen(run.report_url) as answer:
        assert b"names" in answer.read()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(run.report_url[:-3] + "xxx")
    assert caught.value.code == 404
    caught.value.close()


def test_a_model_is_asked_and_judged(client: OpenAI) -> None:
    asked: Any = {"role": "user", "content": "word {{item.place}}"}
    text = client.chat.completions.create(
        model=BASE, messages=[{"role": "user", "content": "word 1"}], temperature=0, max_tokens=8
    ).choices[0].message.content  # fmt: skip
    rows = [{"item": {"answer": text, "place": i}} for i in range(4)] + [{"item": {"answer": 3}}]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    file = client.files.create(file=("rows.jsonl", io.BytesIO(lines)), purpose="evals")
    made = new_eval(client)
    run = client.evals.runs.create(
        made.id, name="first",
        data_source={
            "type": "completions", "model": BASE, "source": {"type": "file_id", "id": file.id},
            "input_messages": {"type": "template", "template": [asked]},
            "sampling_params": {"temperature": 0, "max_completion_tokens": 8},
        },
    )  # fmt: skip
    run = wait(client, run)
    assert run.status == "completed"
    assert run.result_counts.errored == 1
    assert run.per_model_usage[0].invocation_count == 4
    listed = client.evals.runs.output_items.list(run.id, eval_id=made.id)
    items = sorted(listed, key=lambda item: item.datasource_item_id)
    assert items[1].status == "pass"
    assert items[1].sample.output[0].content == text
    assert items[1].sample.input[0].content == "word 1"
    assert "answer" in items[4].sample.error.message


def test_evals_and_runs_are_kept_changed_and_forgotten(client: OpenAI) -> None:
    made = new_eval(client)
    assert client.evals.update(made.id, name="other").name == "other"
    run = wait(client, client.evals.runs.create(made.id, data_source=given(["yes"])))
    assert [one.id for one in client.evals.runs.list(made.id)] == [run.id]
    client.evals.runs.delete(run.id, eval_id=made.id)
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.retrieve(run.id, eval_id=made.id)
    client.evals.delete(made.id)
    assert made.id not in [one.id for one in client.evals.list(order="desc", limit=100)]


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        ({**EQUAL, "type": "function", "path": "os:system"}, "type"),
        ({"type": "multi", "name": "m", "calculate_output": "a", "graders": {
            "a": {"type": "function", "path": "os:system"}}}, "for recipes"),
        ({"type": "classifier", "name": "c", "run": "x", "label": "y"}, "type"),
        ({"type": "score_model", "name": "s", "model": "gpt-4o",
          "input": [{"role": "user", "content": "?"}]}, "does not exist"),
        ({"type": "multi", "name": "m", "calculate_output": "a + b", "graders": {"a": EQUAL}},
         "names b"),
    ],
)  # fmt: skip
def test_what_a_request_may_not_grade_by_is_refused(
    client: OpenAI, criterion: Any, words: str
) -> None:
    with pytest.raises(openai.APIStatusError, match=words) as caught:
        new_eval(client, criterion)
    assert caught.value.status_code in (400, 404)


def run_grader(client: OpenAI, grader: Any, sample: str, **item: Any) -> Any:
    return client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item)


def test_graders_give_rewards(client: OpenAI) -> None:
    assert run_grader(client, EQUAL, "yes", answer="yes").reward == 1
    assert run_grader(client, EQUAL, "no", answer="yes").reward == 0
    json_check = {**EQUAL, "input": "{{sample.output_json.name}}"}
    assert run_grader(client, json_check, '{"name": "yes"}', answer="yes").reward == 1
    alike = {"type": "text_similarity", "name": "c", "evaluation_metric": "cosine",
             "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}  # fmt: skip
    assert run_grader(client, alike, "a b", answer="a b").reward == pytest.approx(1, abs=1e-5)
    multi = {"type": "multi", "name": "m", "calculate_output": "(a + b) / 2",
             "graders": {"a": EQUAL, "b": {**EQUAL, "reference": "no"}}}  # fmt: skip
    found = run_grader(client, multi, "yes", answer="yes")
    assert (found.reward, found.sub_rewards) == (0.5, {"a": 1, "b": 0})
    assert found.metadata.errors.formula_parse_error is False
    assert client.fine_tuning.alpha.graders.validate(grader=EQUAL).grader


def test_a_model_may_grade(client: OpenAI) -> None:
    scored = {"type": "score_model", "name": "s", "model": BASE, "range": [0, 10],
              "sampling_params": {"max_completions_tokens": 8},
              "input": [{"role": "user", "content": "Good? {{sample.output_text}}"}]}  # fmt: skip
    found = run_grader(client, scored, "yes")
    assert found.reward == 0
    assert found.metadata.errors.api_model_grader_parse_error


@pytest.mark.skipif(bool(cannot_shut_in()), reason="programs cannot be shut in here")
def test_a_program_may_grade_and_fail(client: OpenAI) -> None:
    source = "def grade(sample, item):\n    return len(sample['output_text']) / 0"
    program = {"type": "python", "name": "p", "source": source}
    found = run_grader(client, program, "yes")
    assert found.metadata.errors.python_grader_runtime_error
    assert "ZeroDivisionError" in found.metadata.errors.python_grader_runtime_error_details


def test_what_a_template_misses_is_told(client: OpenAI) -> None:
    found = run_grader(client, EQUAL, "yes")
    assert found.metadata.errors.invalid_variable_error
