"""What graders need from outside: models behind addresses, vectors, functions of one's own."""

from pathlib import Path

import pytest

from endpoint import Body, serving
from luthier.data import Message
from luthier.errors import ConfigError
from luthier.evaluation import OwnError, Said
from luthier.pipeline.events import Event, Note
from luthier.pipeline.means import ModelsToAsk, load_function, open_means
from luthier.recipe import Judge, Judging, Runtime, SamplingParams
from tiny_encoders import write_encoder

QUESTIONS = [[Message("user", f"How good is {word}?")] for word in ("tea", "ink", "tea")]
GREEDY = SamplingParams()


@pytest.mark.enable_socket
def test_models_are_asked_once_and_prices_are_said_before(tmp_path: Path) -> None:
    pytest.importorskip("openai", reason="the client of endpoints")

    def answer(asked: Body) -> str | int:
        assert asked["temperature"] == 0
        assert "top_p" not in asked
        return 500 if "ink" in asked["messages"][-1]["content"] else "fine"

    seen: list[Event] = []
    with serving(answer) as server:
        judge = Judge(model=f"{server.url}#judge", input_price=1000, output_price=2000)
        ask = ModelsToAsk(judge, tmp_path, seen.append)
        found = ask("small", QUESTIONS, GREEDY)
        assert found[0] == found[2] == Said("fine")
        assert "status 500" in found[1].error
        assert {asked["model"] for asked in server.asked} == {"small"}
        # 12 tokens of 50 letters, and 3 answers of 150 tokens: 0.012 + 0.9.
        assert seen == [
            Note("small is asked 3 questions, about 12 tokens; that costs about 0.91"),
        ]
        before = len(server.asked)
        assert ask("small", [QUESTIONS[0]], GREEDY) == [Said("fine")]
        assert len(server.asked) == before
        assert len(seen) == 1
        ask("small", [QUESTIONS[0]], SamplingParams(seed=3, reasoning_effort="low"))
        assert server.asked[-1]["seed"] == 3
        assert server.asked[-1]["reasoning_effort"] == "low"


def test_functions_are_found_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_graders.py").write_text(
        "def length(sample, item):\n    return len(sample['output_text'])\nNUMBER = 3\n"
    )
    own = load_function("my_graders:length")
    assert own({"output_text": "four"}, {}) == 4
    with pytest.raises(OwnError, match="KeyError: 'output_text'"):
        own({}, {})
    for path, said in (
        ("my_graders:missing", "AttributeError"),
        ("no_such_module:x", "ModuleNotFoundError"),
        ("my_graders:NUMBER", "is no function"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_function(path)


def test_vectors_tell_likeness(tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder")
    judging = Judging(embedder=str(tmp_path / "encoder"))
    means = open_means(judging, Runtime(workspace=tmp_path, device="cpu", threads=1))
    first, second = means.embed(["the same", "the same"])
    assert (first == second).all()
