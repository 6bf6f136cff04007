"""Logs of every kind become candidates, and candidates rows with their origin."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from luthier.curation import Decision, decide, import_logs, read_decisions
from luthier.curation.logs import candidates
from luthier.data import Finding, Place, Row, example_of
from luthier.errors import ConfigError, DataError
from luthier.runs import Datasets

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
SAID = {"role": "assistant", "content": "So."}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
COMPLETION = {
    "id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4.1-mini",
    "choices": [{"index": 0, "message": SAID, "finish_reason": "stop"}],
}  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "model": "gpt-5-mini",
    "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant",
         "content": [{"type": "output_text", "text": "So."}]},
    ],
}  # fmt: skip
SPAN = {
    "gen_ai.operation.name": "chat", "gen_ai.response.model": "gpt-4.1-mini",
    "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
    "gen_ai.input.messages": json.dumps(
        [{"role": "user", "parts": [{"type": "text", "content": "Why?"}]}]
    ),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "So."}],
          "finish_reason": "stop"}]
    ),
}  # fmt: skip
LANGCHAIN = [
    {
        "id": ["langchain", "schema", "messages", "SystemMessage"],
        "kwargs": {"content": "Be brief."},
    },
    {"id": ["langchain", "schema", "messages", "HumanMessage"], "kwargs": {"content": "Why?"}},
]
LOGS: dict[str, dict[str, Any]] = {
    "stored": {**COMPLETION, "request": {"model": "gpt-4.1-mini"}, "input_messages": ASKED},
    "stored with its request": {**COMPLETION, "request": {"messages": ASKED}},
    "batch output": {
        "id": "batch_req_1", "custom_id": "r1", "error": None, "request": {"messages": ASKED},
        "response": {"status_code": 200, "body": COMPLETION},
    },
    "batch of responses": {
        "custom_id": "r1", "response": {"status_code": 200, "body": RESPONSE},
        "request": {"instructions": "Be brief.", "input": "Why?"},
    },
    "own": {"id": "x", "request": {"messages": ASKED}, "response": COMPLETION},
    "LangSmith": {
        "id": "run-1", "run_type": "llm", "inputs": {"messages": ASKED},
        "outputs": {"choices": [{"message": SAID}]}, "feedback_stats": {"user_score": {"avg": 1.0}},
    },
    "LangSmith of LangChain": {
        "id": "run-1", "run_type": "llm", "inputs": {"messages": [LANGCHAIN]},
        "outputs": {"generations": [[{"text": "So.", "message": {
            "id": ["langchain", "schema", "messages", "AIMessage"],
            "kwargs": {"content": "So."}}}]]},
    },
    "Langfuse": {
        "id": "obs-1", "type": "GENERATION", "model": "gpt-4.1-mini", "input": json.dumps(ASKED),
        "output": json.dumps(SAID), "scores": [{"name": "thumb", "value": 1}],
    },
    "Langfuse with tools": {
        "id": "obs-1", "type": "GENERATION", "input": {"messages": ASKED, "tools": []},
        "output": "So.",
    },
    "OpenTelemetry": {"span_id": "s1", "attributes": SPAN},
    "OTLP": {
        "spanId": "s1",
        "attributes": [{"key": k, "value": {"stringValue": v}} for k, v in SPAN.items()],
    },
}  # fmt: skip


def read(fields: Mapping[str, Any]) -> tuple[list[Any], list[Finding]]:
    findings: list[Finding] = []
    row = Row(Place("log.jsonl", 1), dict(fields))
    return [found for _, found in candidates([row], findings.append)], findings


@pytest.mark.parametrize("name", LOGS)
def test_every_kind_of_log_becomes_the_same_row(name: str) -> None:
    (found,), findings = read(LOGS[name])
    assert findings == []
    assert found["messages"] == [*ASKED, SAID]
    assert found["log_id"]
    assert example_of(Row(Place("x", 1), found)) is not None
    if "score" in str(LOGS[name]):
        assert found["log_score"] == 1


def test_calls_of_tools_are_kept() -> None:
    asked = [*ASKED, {"role": "assistant", "tool_calls": [CALL]},
             {"role": "tool", "tool_call_id": "c1", "content": "seen"}]  # fmt: skip
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    (found,), _ = read({"request": {"messages": asked, "tools": [tool]}, "response": COMPLETION})
    assert found["messages"] == [*asked, SAID]
    assert found["tools"] == [tool]
    parts = [
        {"role": "user", "parts": [{"type": "text", "content": "Why?"}]},
        {"role": "assistant", "parts": [
            {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": "it"}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "seen"}]},
    ]  # fmt: skip
    (found,), _ = read({"attributes": {**SPAN, "gen_ai.input.messages": json.dumps(parts)}})
    assert found["messages"][1:4] == asked[1:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"response": {"status_code": 400, "body": {}}}, "failed with 400"),
        ({"error": {"code": "expired"}}, "failed: {'code': 'expired'}"),
        ({"request": {}}, "does not hold what was asked"),
        ({"response": {"body": {**COMPLETION, "choices": []}}}, "was not answered"),
        ({"response": {"body": {**COMPLETION, "choices": [
            {"message": SAID, "finish_reason": "length"}]}}}, "was cut by a limit"),
        ({"response": {"body": {**COMPLETION, "choices": [{}]}}}, "KeyError 'message'"),
        ({"request": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}},
         "a part of the type 'image_url', which is no text"),
    ],
)  # fmt: skip
def test_what_was_not_answered_is_left_out_with_a_reason(change: dict[str, Any], said: str) -> None:
    found, (finding,) = read({**LOGS["batch output"], **change})
    assert found == []
    assert said in str(finding)
    assert finding.severity == "warning"


def test_other_lines_are_named() -> None:
    assert "has the fields text; expected OpenAI batch output" in str(read({"text": "x"})[1][0])
    assert read({**LOGS["LangSmith"], "run_type": "chain"}) == ([], [])
    assert read({**LOGS["Langfuse"], "type": "SPAN"}) == ([], [])


def log_of(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    place = folder / name
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place


def exchange(i: int, answer: str = "So.") -> dict[str, Any]:
    said = {**COMPLETION, "choices": [{"message": {**SAID, "content": f"{answer} {i}"}}]}
    asked = [{"role": "user", "content": f"Why {i}?"}]
    return {"id": f"x{i}", "request": {"messages": asked}, "response": said}


def test_candidates_are_imported_once_decided_and_remembered(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    log = log_of(tmp_path, "log.jsonl", [exchange(i) for i in range(6)])
    done = import_logs(datasets, "waiting", [log])
    assert (done.num_new, done.num_known) == (6, 0)
    rows = [*datasets.content(done.version).rows()]
    ids = [row.id for row in rows]
    decisions = log_of(tmp_path, "decisions.jsonl", [
        {"row": ids[0], "accept": True}, {"row": ids[1], "accept": False},
        {"row": ids[2], "correction": "Because."},
    ])  # fmt: skip
    decided = decide(datasets, done.version, "support", read_decisions(decisions))
    assert decided.version is not None
    assert (decided.num_accepted, decided.num_corrected, decided.num_rejected) == (1, 1, 1)
    learnt = [*datasets.content(decided.version).rows()]
    assert [row.fields["messages"][-1]["content"] for row in learnt] == ["So. 0", "Because."]
    assert all(set(row.fields) == {"messages"} for row in learnt)
    assert learnt[0].origin.endswith("log.jsonl:1 x0 (accepted)")
    assert learnt[1].origin.endswith("log.jsonl:3 x2 (corrected)")
    assert decided.remaining is not None
    assert decided.remaining.num_rows == 3
    longer = log_of(tmp_path, "longer.jsonl", [exchange(i) for i in range(8)])
    again = import_logs(datasets, "waiting", [longer])
    assert (again.num_new, again.num_known) == (2, 6), "what was decided does not come back"
    assert again.version.num_rows == 5
    same = import_logs(datasets, "waiting", [longer])
    assert (same.num_new, same.version) == (0, again.version)
    rest = [row.id for row in datasets.content(again.version).rows()]
    last = decide(datasets, again.version, "support", dict.fromkeys(rest, Decision(True)))
    assert last.version is not None
    assert last.version.num_rows == 7
    assert last.remaining is None
    # None waits, and none of all that was decided comes back.
    final = import_logs(datasets, "waiting", [longer])
    assert (final.num_new, final.num_known, final.version.num_rows) == (0, 8, 0)
    with pytest.raises(ConfigError, match="is not the newest"):
        decide(datasets, done.version, "support", {ids[1]: Decision(True)})


def test_all_may_be_rejected_and_ids_be_short(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    log = log_of(tmp_path, "log.jsonl", [exchange(i) for i in range(2)])
    version = import_logs(datasets, "waiting", [log]).version
    ids = [row.id[:8] for row in datasets.content(version).rows()]
    done = decide(datasets, version, "support", dict.fromkeys(ids, Decision(False)))
    assert (done.version, done.remaining, done.num_rejected) == (None, None, 2)
    assert "support" not in datasets.names()
    assert import_logs(datasets, "waiting", [log]).num_new == 0


def test_requests_without_an_id_come_back_no_more_either(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    line = {"request": {"messages": ASKED}, "response": {"choices": [{"message": SAID}]}}
    log = log_of(tmp_path, "log.jsonl", [line])
    version = import_logs(datasets, "waiting", [log]).version
    assert import_logs(datasets, "waiting", [log]).num_new == 0
    (row,) = datasets.content(version).rows()
    decide(datasets, version, "support", {row.id: Decision(False)})
    assert import_logs(datasets, "waiting", [log]).num_new == 0


def test_candidates_are_not_put_among_themselves(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    log = log_of(tmp_path, "log.jsonl", [exchange(0)])
    version = import_logs(datasets, "waiting", [log]).version
    (row,) = datasets.content(version).rows()
    with pytest.raises(ConfigError, match="where candidates wait"):
        decide(datasets, version, "waiting", {row.id: Decision(True)})


def test_batches_are_joined_to_what_was_asked(tmp_path: Path) -> None:
    output = {k: v for k, v in LOGS["batch output"].items() if k != "request"}
    log = log_of(tmp_path, "output.jsonl", [output])
    with pytest.raises(DataError, match="hold no request with an answer"):
        import_logs(Datasets(tmp_path / "workspace"), "waiting", [log])
    asked = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions",
             "body": {"messages": ASKED}}  # fmt: skip
    inputs = log_of(tmp_path, "input.jsonl", [asked])
    done = import_logs(Datasets(tmp_path / "workspace"), "waiting", [log], [inputs])
    assert done.num_new == 1


def test_decisions_that_are_none_are_refused(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path / "workspace")
    log = log_of(tmp_path, "log.jsonl", [exchange(i) for i in range(3)])
    version = import_logs(datasets, "waiting", [log]).version
    (first, *_) = (row.id for row in datasets.content(version).rows())
    with pytest.raises(ConfigError, match="has no row 'nobody'"):
        decide(datasets, version, "support", {"nobody": Decision(True)})
    with pytest.raises(ConfigError, match="nothing is accepted"):
        decide(datasets, version, "support", {})
    wrong = log_of(tmp_path, "wrong.jsonl", [{"row": first}, {"row": 3, "accept": True}])
    with pytest.raises(DataError, match="2 problems") as raised:
        read_decisions(wrong)
    assert "wrong.jsonl:1 has the fields row" in str(raised.value)
    assert datasets.names() == ["waiting"]


def test_requests_that_failed_say_why(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"request": {"messages": ASKED}, "response": None, "error": {"code": "batch_expired"}},
        {"custom_id": "r", "response": None, "error": {"code": "batch_expired"}},
        exchange(1),
    ]
    log = log_of(tmp_path, "log.jsonl", lines)
    done = import_logs(Datasets(tmp_path / "workspace"), "waiting", [log])
    assert [str(f).count("batch_expired") for f in done.left_out] == [1, 1]
