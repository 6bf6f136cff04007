"""Models behind an address, asked by the real client over real HTTP."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoint import Body, completion, serving
from luthier.data import Chat
from luthier.errors import ConfigError
from luthier.evaluation import Prompt
from luthier.pipeline.endpoints import Asked, Asking, Endpoint, EndpointPredictor, open_endpoint
from tiny import chat

pytest.importorskip("openai", reason="the client of endpoints")
pytestmark = pytest.mark.enable_socket
ROWS = [
    chat(("system", "add"), ("user", f"1+{i}"), ("assistant", str(i)), line=i) for i in range(9)
]


def predictor(url: str, folder: Path, **more: Any) -> EndpointPredictor:
    asking = Asking(open_endpoint(url, "m"), Asked(max_tokens=5), folder)
    return EndpointPredictor("it", asking, **more)


def question(asked: Body) -> str:
    return str(asked["messages"][-1]["content"])


def test_rows_are_answered_in_order_and_never_asked_twice(tmp_path: Path) -> None:
    with serving(question) as server:
        seen: list[int] = []
        first = predictor(server.url, tmp_path, observe=lambda n, total: seen.append(n))
        found = first.predict(ROWS)
        assert [p.text for p in found] == [f"1+{i}" for i in range(9)]
        assert [p.example_id for p in found] == [row.id for row in ROWS]
        assert {(p.prompt_tokens, p.stopped) for p in found} == {(7, True)}
        assert seen == list(range(1, 10))
        assert server.asked[0]["temperature"] == 0
        assert server.asked[0]["max_completion_tokens"] == 5
        assert predictor(server.url, tmp_path).predict(ROWS) == found
        assert len(server.asked) == 9
        # Another question is another answer.
        predictor(server.url, tmp_path, prompt=Prompt("subtract")).predict(ROWS[:2])
        assert server.asked[-1]["messages"][0] == {"role": "system", "content": "subtract"}
        assert len(server.asked) == 11


def test_a_row_that_is_refused_says_why_and_is_asked_again_later(tmp_path: Path) -> None:
    troubles: dict[str, Any] = {
        "1+1": 400, "1+2": {"id": "c", "choices": []}, "1+3": b"<html>no</html>",
        "1+4": {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]},
        "1+5": {"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]},
    }  # fmt: skip
    with serving(lambda asked: troubles.get(question(asked), "fine")) as server:
        found = predictor(server.url, tmp_path).predict(ROWS)
        assert [bool(p.error) for p in found] == [
            False,
            True,
            True,
            True,
            False,
            True,
            *[False] * 3,
        ]
        assert "status 400: " in found[1].error
        assert found[4].text == ""
        troubles.clear()
        before = len(server.asked)
        assert not any(p.error for p in predictor(server.url, tmp_path).predict(ROWS))
        assert len(server.asked) == before + 4


def test_an_answer_cut_by_the_limit_is_marked(tmp_path: Path) -> None:
    with serving(lambda asked: completion(asked, "a b c", "length")) as server:
        (found,) = predictor(server.url, tmp_path).predict(ROWS[:1])
    assert (found.stopped, found.num_tokens) == (False, 3)


def test_busy_servers_are_asked_again(tmp_path: Path) -> None:
    statuses = iter([429, 500, 503])
    with serving(lambda asked: next(statuses, "at last")) as server:
        (found,) = predictor(server.url, tmp_path).predict(ROWS[:1])
        assert (found.text, len(server.asked)) == ("at last", 4)


def test_what_can_never_be_answered_ends_the_work_and_keeps_the_rest(tmp_path: Path) -> None:
    with serving(lambda asked: 401 if question(asked) == "1+8" else "fine") as server:
        with pytest.raises(ConfigError, match=r"answers 401.*check the model and the key"):
            predictor(server.url, tmp_path).predict(ROWS)
        before = len(server.asked)
        server.answer = question
        predictor(server.url, tmp_path).predict(ROWS)
        assert len(server.asked) < before + 9


def test_nobody_there_is_said(tmp_path: Path) -> None:
    alone = predictor("http://127.0.0.1:9/v1", tmp_path)
    client = alone.asking.endpoint.client.with_options(max_retries=0)
    alone = replace(alone, asking=replace(alone.asking, endpoint=Endpoint("m", client)))
    with pytest.raises(ConfigError, match="cannot be reached"):
        alone.predict(ROWS[:1])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://", "nowhere", ""])
def test_addresses_of_other_kinds_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        open_endpoint(url, "m")


def test_passwords_in_addresses_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="LUTHIER_ENDPOINT_KEY") as raised:
        open_endpoint("http://me:hunter2@host/v1", "m")
    assert "hunter2" not in str(raised.value)


def test_keys_go_to_whom_they_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUTHIER_ENDPOINT_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "of-openai")
    assert open_endpoint("https://api.openai.com/v1", "m").client.api_key == "of-openai"
    assert open_endpoint("https://api.openai.com.evil.example/v1", "m").client.api_key == "none"
    with serving(question) as server:
        predictor(server.url, tmp_path).predict(ROWS[:1])
        assert server.keys == ["Bearer none"]
        monkeypatch.setenv("LUTHIER_ENDPOINT_KEY", "mine")
        predictor(server.url, tmp_path / "other").predict(ROWS[:1])
        assert server.keys[-1] == "Bearer mine"
        monkeypatch.setenv("LUTHIER_ENDPOINT_KEY_127_0_0_1", "of this host")
        predictor(server.url, tmp_path / "third").predict(ROWS[:1])
        assert server.keys[-1] == "Bearer of this host"
    assert open_endpoint("https://api.openai.com/v1", "m").client.api_key == "of-openai"
    assert open_endpoint("https://other.example/v1", "m").client.api_key == "mine"


def test_tools_and_calls_are_sent_as_the_protocol_has_them(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
    row: Chat = replace(ROWS[0], tools=(tool,))
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    with serving(lambda asked: body) as server:
        (found,) = predictor(server.url, tmp_path).predict([row])
        assert server.asked[0]["tools"] == [tool]
    assert (found.text, found.tool_calls) == ("", (("now", "{}"),))


def test_half_a_surrogate_is_kept_as_it_came(tmp_path: Path) -> None:
    with serving(lambda asked: "cut \ud83d") as server:
        first = predictor(server.url, tmp_path).predict(ROWS[:2])
        assert [p.text for p in first] == ["cut \ud83d"] * 2
        assert predictor(server.url, tmp_path).predict(ROWS[:2]) == first
        assert len(server.asked) == 2
