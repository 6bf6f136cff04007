"""GGUF files become safetensors folders that compute and tokenize what the file says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import sources_files as files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from luthier.errors import ModelError
from luthier.models.sources import resolve_source
from luthier.models.sources.pretokenizers import SPLITTINGS
from luthier.recipe import Model


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF file, and the folder it was converted to."""
    folder = tmp_path_factory.mktemp("gguf")
    file = files.write_gguf(folder / "tiny.gguf")
    return file, resolve_source(Model(source=str(file)), folder / "cache").path


def resolve(file: Path) -> Path:
    return resolve_source(Model(source=str(file)), file.parent / "cache").path


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(file)
    leftovers = [p for p in (file.parent / "cache").rglob("*") if "hashes" not in p.parts]
    assert [p for p in leftovers if p.is_file()] == []
    return str(caught.value)


def test_weights_equal_the_dequantised_blocks(converted: tuple[Path, Path]) -> None:
    weights = load_file(converted[1] / "model.safetensors")
    names = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    expected = {}
    for name, weight in files.random_weights().items():
        kind = files.storage_type(name)
        # Quantisation works along rows, so llama.cpp's reordering of rows commutes with it.
        value = gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind)
        parts = name.split(".")
        new = (
            f"model.layers.{parts[1]}.{names[parts[2]]}.weight"
            if parts[0] == "blk"
            else {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}[parts[0]]
            + ".weight"
        )
        expected[new] = value.astype(np.float16)
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert weights[name].dtype == np.float16
        np.testing.assert_array_equal(weights[name], value, err_msg=name)


def test_the_tokenizer_splits_as_the_file_says(converted: tuple[Path, Path]) -> None:
    tokenizer = Tokenizer.from_file(str(converted[1] / "tokenizer.json"))
    assert tokenizer.encode("<|im_start|>hel 123<|im_end|>").tokens == [
        "<|im_start|>", "hel", "\u0120", "1", "2", "3", "<|im_end|>",
    ]  # fmt: skip


def test_a_start_token_is_not_added_unasked(converted: tuple[Path, Path]) -> None:
    tokenizer = Tokenizer.from_file(str(converted[1] / "tokenizer.json"))
    assert tokenizer.encode("h", add_special_tokens=True).tokens == ["h"]
    settings = json.loads((converted[1] / "tokenizer_config.json").read_text())
    assert settings["add_bos_token"] is False
    assert (settings["bos_token"], settings["eos_token"]) == ("<|im_start|>", "<|im_end|>")


@pytest.mark.parametrize(
    ("prefixes", "tokens"), [(True, ["\u2581he", "\u2581he"]), (False, ["he", "\u2581he"])]
)
def test_sentencepiece_text_gets_a_space_in_front_only_if_the_file_says_so(
    tmp_path: Path, prefixes: bool, tokens: list[str]
) -> None:
    file = files.write_gguf(
        tmp_path / "sp.gguf",
        tokenizer="llama",
        edit=lambda writer: writer.add_add_space_prefix(prefixes),
    )
    tokenizer = Tokenizer.from_file(str(resolve(file) / "tokenizer.json"))
    encoding = tokenizer.encode("he he", add_special_tokens=False)
    assert encoding.tokens == tokens
    assert tokenizer.decode(encoding.ids) == "he he"
    ids = tokenizer.encode(" he\u00e9", add_special_tokens=False).ids
    assert tokenizer.decode(ids).strip() == "he\u00e9"


def test_template_and_end_tokens_are_kept(converted: tuple[Path, Path]) -> None:
    folder = converted[1]
    assert (folder / "chat_template.jinja").read_text() == files.TEMPLATE
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 3]
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_licence_and_identity_are_reported(converted: tuple[Path, Path]) -> None:
    file, folder = converted
    found = resolve_source(Model(source=str(file)), file.parent / "cache")
    assert (found.path, found.licence, found.kind) == (folder, "apache-2.0", "gguf")
    assert len(found.sha256) == 64


def test_a_converted_file_is_reused_without_torch(converted: tuple[Path, Path]) -> None:
    file, folder = converted
    script = (
        "import sys; from pathlib import Path; from luthier.recipe import Model;"
        "from luthier.models import resolve_source;"
        "print(resolve_source(Model(source=sys.argv[1]), Path(sys.argv[2])).path);"
        "print([m for m in ('torch', 'transformers', 'gguf') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, file, file.parent / "cache"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [str(folder), "[]"]


def test_a_float_file_keeps_its_precision(tmp_path: Path) -> None:
    weights = {name: weight for name, weight in files.random_weights().items() if "norm" in name}
    matrices = {n: w for n, w in files.random_weights().items() if "norm" not in n}
    floats = {n: files.rotated(n, w) for n, w in matrices.items()}

    def edit(writer: gguf.GGUFWriter) -> None:
        for name, weight in floats.items():
            writer.add_tensor(name, weight)

    folder = resolve(files.write_gguf(tmp_path / "floats.gguf", weights, edit=edit))
    stored = load_file(folder / "model.safetensors")
    np.testing.assert_array_equal(
        stored["model.layers.0.self_attn.k_proj.weight"], matrices["blk.0.attn_k.weight"]
    )


def test_weights_beyond_float16_are_kept_in_float32(tmp_path: Path) -> None:
    weights = files.random_weights()
    weights["output_norm.weight"][0] = 1e6
    folder = resolve(files.write_gguf(tmp_path / "large.gguf", weights))
    assert load_file(folder / "model.safetensors")["model.norm.weight"][0] == 1e6


def test_a_file_of_the_same_name_elsewhere_is_not_mistaken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_gguf(tmp_path / "here" / "tiny.gguf", files.random_weights(seed=1))
    weights = files.random_weights(seed=2)
    file = files.write_gguf(tmp_path / "there" / "tiny.gguf", weights)
    monkeypatch.chdir(tmp_path / "here")
    norm = load_file(resolve(file) / "model.safetensors")["model.norm.weight"]
    np.testing.assert_array_equal(norm, weights["output_norm.weight"].astype(np.float16))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(share=st.floats(0, 0.999))
def test_a_file_cut_short_anywhere_is_refused(
    converted: tuple[Path, Path], tmp_path: Path, share: float
) -> None:
    whole = converted[0].read_bytes()
    file = tmp_path / "cut.gguf"
    # The last tensor is padded to 32 bytes; losing padding alone loses nothing.
    file.write_bytes(whole[: int((len(whole) - 32) * share)])
    assert str(file) in refusal(file)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(noise=st.binary(max_size=200))
def test_noise_after_the_magic_is_refused(tmp_path: Path, noise: bytes) -> None:
    file = tmp_path / "noise.gguf"
    file.write_bytes(b"GGUF" + noise)
    assert str(file) in refusal(file)


YARN = gguf.RopeScalingType.YARN


def add_bias(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("blk.0.attn_q.bias", np.zeros(files.HIDDEN, np.float32))


def add_rope_factors(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("rope_freqs.weight", np.ones(4, np.float32))


def spoil(weights: files.Weights) -> files.Weights:
    weights["output_norm.weight"][3] = np.nan
    return weights


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: p.write_bytes(b"PK\x03\x04 a zip"), "begins with other bytes"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: files.write_gguf(p, pre="no-such"), "'no-such', which are not known here"),
        (lambda p: files.write_gguf(p, pre=None), "does not say how its tokenizer splits"),
        (lambda p: files.write_gguf(p, architecture="clip"), "architecture 'clip' cannot be"),
        (lambda p: files.write_gguf(p, weights={}), "holds no language model"),
        (lambda p: files.write_gguf(p, edit=add_bias), "transformers has a place for"),
        (lambda p: files.write_gguf(p, edit=add_rope_factors), "stretches its positions"),
        (
            lambda p: files.write_gguf(p, edit=lambda w: w.add_rope_scaling_type(YARN)),
            "stretches its positions (yarn)",
        ),
        (
            lambda p: files.write_gguf(p, spoil(files.random_weights())),
            "weights are not finite numbers",
        ),
        (
            lambda p: files.write_gguf(
                p, {n: w for n, w in files.random_weights().items() if "1.ffn_up" not in n}
            ),
            "it lacks model.layers.1.mlp.up_proj.weight",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_converted_exactly_is_refused(
    tmp_path: Path, write: Callable[[Path], object], words: str
) -> None:
    file = tmp_path / "model.gguf"
    write(file)
    assert words in refusal(file)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("gpt-2", "I'LL say 1234!", ["I", "'", "LL", " say", " 1234", "!"]),
        ("smollm", "I'll say 123!", ["I", "'ll", " say", " ", "1", "2", "3", "!"]),
        ("llama-bpe", "I'LL say 1234!", ["I", "'LL", " say", " ", "123", "4", "!"]),
        ("qwen2", "I'LL say 12!\n", ["I", "'LL", " say", " ", "1", "2", "!\n"]),
        ("qwen35", "x\u0301y 12", ["x\u0301y", " ", "1", "2"]),
        ("tekken", "camelCase 12/", ["camel", "Case", " ", "1", "2", "/"]),
        ("gpt-4o", "camelCase's 1234", ["camel", "Case's", " ", "123", "4"]),
        ("default", "a=b 12345", ["a", "=", "b", " ", "123", "45"]),
    ],
)
def test_names_of_splittings_split_as_llama_cpp_has_it(
    name: str, text: str, pieces: list[str]
) -> None:
    found = SPLITTINGS[name].pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in found] == pieces
