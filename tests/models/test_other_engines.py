"""llama.cpp and vLLM answer as our own engine does, over the same weights and adapters."""

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal

import gguf
import pytest
import sources_files as files
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from luthier.errors import ConfigError, ModelError
from luthier.export import write_lora_gguf
from luthier.models import Asked
from luthier.pipeline import Engines
from luthier.pipeline.backends.vllm import Vllm
from luthier.pipeline.engines import Choosing, End, Opened, Piece, Source, Told
from luthier.pipeline.placing import resolve
from luthier.recipe import LoRA, Runtime
from luthier.tokens.forms import json_form

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
RUNTIME = Runtime.model_validate({"device": "cpu", "dtype": "float32", "threads": 1})
PROMPT = [5, 9, 12, 40, 17, 33, 8, 21]
GREEDY = Choosing(temperature=0)
RECORDED = Path(__file__).parents[1] / "golden" / "vllm"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in GGUF, in float32: whatever differs is an engine's doing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "storage_type", lambda name: gguf.GGMLQuantizationType.F32)
        return files.write_gguf(tmp_path_factory.mktemp("base") / "tiny.gguf")


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs with an adapter each, far from the base and from another."""
    found = {}
    for seed, name in enumerate(("lora", "rslora")):
        network = AutoModelForCausalLM.from_pretrained(resolve(str(base), RUNTIME, print).path)
        torch.manual_seed(seed)
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules="all-linear",
            init_lora_weights=False,
            use_rslora=name == "rslora",
        )
        folder = tmp_path_factory.mktemp("made")
        get_peft_model(network, config).save_pretrained(str(folder / "adapter"))
        found[name] = folder
    return found


@pytest.fixture(scope="module")
def own() -> Iterator[Engines]:
    engines = Engines(RUNTIME, slots=2)
    yield engines
    engines.close()


@pytest.fixture(scope="module")
def llama_cpp() -> Iterator[Engines]:
    pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    engines = Engines(RUNTIME, slots=2, kind="llama.cpp")
    yield engines
    engines.close()


class Asking:
    """An answer under way."""

    def __init__(self, opened: Opened, most: int = 12, choosing: Choosing = GREEDY) -> None:
        self.told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self.answer = opened.ask(
            PROMPT, self.told.put, max_new_tokens=most, choosing=choosing, num_logprobs=2
        )

    def whole(self) -> tuple[list[Piece], End]:
        pieces = []
        while not isinstance(told := self.told.get(timeout=60), End):
            if isinstance(told, Exception):
                raise told
            pieces.append(told)
        return pieces, told


@pytest.mark.parametrize("name", ["", "lora", "rslora"])
def test_llama_cpp_says_what_our_engine_says(
    own: Engines, llama_cpp: Engines, base: Path, made: dict[str, Path], name: str
) -> None:
    source = Source(str(base), made[name] if name else None)
    wanted, wanted_end = Asking(own.open(source)).whole()
    found, end = Asking(llama_cpp.open(source)).whole()
    # It does not tell the tokens of a letter that is not complete at the end.
    assert len(wanted) - 3 <= len(found) <= len(wanted)
    wanted = wanted[: len(found)]
    assert [piece.id for piece in found] == [piece.id for piece in wanted]
    assert end.reason == wanted_end.reason
    # llama.cpp keeps keys and values in half precision.
    likely = [piece.logprob for piece in wanted]
    assert [piece.logprob for piece in found] == pytest.approx(likely, abs=5e-3)
    assert [piece.top[0][0] for piece in found] == [piece.id for piece in wanted]


def test_an_adapter_that_comes_later_disturbs_no_answer(
    llama_cpp: Engines, base: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    opened = llama_cpp.open(Source(str(base), made["lora"]))
    wanted, _ = Asking(opened, 100).whole()
    under_way = Asking(opened, 100)
    (tmp_path / "another").symlink_to(made["rslora"])
    later = llama_cpp.open(Source(str(base), tmp_path / "another"))
    found, _ = under_way.whole()
    assert [piece.id for piece in found] == [piece.id for piece in wanted]
    assert Asking(later).whole()[0] != wanted[:12]
    assert later.engine.forget(later.adapter)


def test_llama_cpp_chooses_as_asked(llama_cpp: Engines, base: Path) -> None:
    opened = llama_cpp.open(Source(str(base)))
    drawn = [Asking(opened, 20, Choosing(temperature=1.5, seed=s)).whole()[0] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    pieces, _ = Asking(opened, 5, Choosing(temperature=0, logit_bias={17: 100.0})).whole()
    assert [piece.id for piece in pieces] == [17] * 5
    form = json_form({"enum": [12]})
    pieces, end = Asking(opened, 40, Choosing(temperature=1, form=form)).whole()
    assert opened.tokenizer.decode([piece.id for piece in pieces]).strip() == "12"
    assert end.reason == "stop"


def test_letters_of_several_tokens_are_whole(llama_cpp: Engines, base: Path) -> None:
    opened = llama_cpp.open(Source(str(base)))
    form = json_form({"enum": ["\u6728\u00e9"]})
    pieces, _ = Asking(opened, 60, Choosing(temperature=0, form=form)).whole()
    text = opened.tokenizer.decode([piece.id for piece in pieces])
    assert json.loads(text) == "\u6728\u00e9"


def test_who_does_not_wait_is_not_answered(llama_cpp: Engines, base: Path) -> None:
    opened = llama_cpp.open(Source(str(base)))
    asking = Asking(opened, 110)
    asking.answer.cancel()
    assert asking.whole()[1].reason in ("cancelled", "length")
    assert opened.engine.num_waiting == 0


def test_what_llama_cpp_cannot_do_is_said(
    llama_cpp: Engines, base: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    folder = resolve(str(base), RUNTIME, print).path
    with pytest.raises(ModelError, match="is no GGUF file"):
        llama_cpp.open(Source(str(folder)))
    opened = llama_cpp.open(Source(str(base)))
    with pytest.raises(ModelError, match="does not say how likely"):
        opened.engine.weigh(PROMPT, "", 1)
    adapter = made["lora"] / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    for changed, found in (
        ({"use_dora": True}, "DoRA"), ({"modules_to_save": ["lm_head"]}, "more than plain"),
    ):  # fmt: skip
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | changed))
        with pytest.raises(ModelError, match=found):
            write_lora_gguf(tmp_path, base, tmp_path / "x.gguf")


@pytest.mark.parametrize(("kind", "url"), [("vllm", ""), ("torch", "http://127.0.0.1:1")])
def test_where_vllm_is_must_be_known(kind: Literal["torch", "vllm"], url: str) -> None:
    with pytest.raises(ConfigError, match="--vllm"):
        Engines(RUNTIME, kind=kind, url=url)


class Replay(BaseHTTPRequestHandler):
    """Answers as a vLLM 0.32 did when it was asked the same, and notes what it was asked."""

    asked: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def do_GET(self) -> None:
        self._answer(RECORDED / "models.json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, body))
        if self.path != "/v1/completions":
            self._answer(None)
        else:
            self._answer(RECORDED / ("stream.txt" if body.get("stream") else "weigh.json"))

    def _answer(self, file: Path | None) -> None:
        content = b"Success" if file is None else file.read_bytes()
        self.send_response(200)
        is_json = file is not None and file.suffix == ".json"
        self.send_header("content-type", "application/json" if is_json else "text/event-stream")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def vllm(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vllm]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = resolve(str(base), RUNTIME, print)
    monkeypatch.setattr("luthier.pipeline.backends.vllm.resolve", lambda *given: folder)
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    Replay.asked.clear()
    engine = Vllm("SmolLM2", RUNTIME, f"http://127.0.0.1:{server.server_port}/v1/", most=4096)
    yield engine
    engine.close()
    server.shutdown()
    server.server_close()


def test_what_vllm_writes_is_read(vllm: Vllm, made: dict[str, Path]) -> None:
    assert vllm.context == 128, "the tokenizer's own, less than the server's 2048"
    told: queue.SimpleQueue[Told] = queue.SimpleQueue()
    choosing = Choosing(temperature=0, seed=3, logit_bias={7: 2.0}, form=json_form())
    vllm.add("mine", made["lora"] / "adapter")
    vllm.submit(Asked([1, 4093, 198, 19556, 2], 4, frozenset({2}), "mine", choosing, 2), told.put)
    pieces = [told.get(timeout=60) for _ in range(5)]
    assert pieces == [
        Piece(198, -0.2792600989341736, ((198, -0.2792600989341736), (1, -1.998837947845459))),
        Piece(1, -0.40922901034355164, ((1, -0.40922901034355164), (2, -1.1656644344329834))),
        Piece(520, -0.2112712562084198, ((520, -0.2112712562084198), (4093, -1.6638507843017578))),
        Piece(9531, -0.000013828182090946939,
              ((9531, -0.000013828182090946939), (363, -11.827028274536133))),
        End("length"),
    ]  # fmt: skip
    (loading, load), (_, body) = Replay.asked
    assert loading == "/v1/load_lora_adapter"
    assert load["lora_path"] == str((made["lora"] / "adapter").resolve())
    assert body["model"] == load["lora_name"]
    assert body["prompt"] == [1, 4093, 198, 19556, 2]
    assert (body["seed"], body["logit_bias"]) == (3, {"7": 2.0})
    assert (body["stop_token_ids"], body["top_k"]) == ([2], 0)
    assert body["structured_outputs"] == {"grammar": json_form()}
    assert vllm.forget("mine")
    assert Replay.asked[-1] == ("/v1/unload_lora_adapter", {"lora_name": load["lora_name"]})


def test_vllm_weighs_tokens(vllm: Vllm) -> None:
    first, second = vllm.weigh([1, 4093, 198], "", 1)
    assert first == Piece(4093, -13.944923400878906, ((29, -0.9850705862045288),))
    assert second == Piece(198, -3.319363594055176, ((198, -3.319363594055176),))
    with pytest.raises(ModelError, match="which vLLM does not read"):
        vllm.add_trained("x", LoRA(), Path("step-1/trained.safetensors"))


def test_another_model_in_vllm_is_refused(vllm: Vllm) -> None:
    with pytest.raises(ConfigError, match="serves SmolLM2, and not another"):
        Vllm("another", RUNTIME, vllm.url, most=64)


def test_a_vllm_that_is_not_there_is_named(base: Path) -> None:
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:1/.*cannot be asked"):
        Vllm(str(base), RUNTIME, "http://127.0.0.1:1", most=64)
