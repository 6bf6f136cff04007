"""A LoRA adapter as llama.cpp reads it: GGUF, beside the base model in GGUF.

Source: https://github.com/ggml-org/llama.cpp/blob/master/convert_lora_to_gguf.py (the form), and
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from luthier.errors import ModelError

PREFIX, SUFFIX = "base_model.model.", re.compile(r"\.lora_(A|B)\.weight$")
PAIRED = {"llama"}
"""Architectures whose GGUF has the rows of queries and keys in another order: those that are
rotated together stand side by side, as in Meta's own weights."""
KNOWN = PAIRED | {"gemma3", "phi3", "qwen2", "qwen3", "smollm3"}


@dataclass(frozen=True, slots=True)
class _Base:
    """What an adapter must know of its base."""

    architecture: str
    num_blocks: int
    heads: dict[str, int]
    """Of queries and of keys."""


def write_lora_gguf(adapter: Path, base: Path, file: Path) -> None:
    """Write a saved PEFT adapter for a base in GGUF.

    Raises ModelError where llama.cpp knows none such, or it does not fit the base.
    """
    import gguf

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    found = _read_base(base)
    _check(config, found, adapter)
    architecture = next(a for a, own in gguf.MODEL_ARCH_NAMES.items() if own == found.architecture)
    names = gguf.get_tensor_name_map(architecture, found.num_blocks)
    rank = int(config["r"])
    # llama.cpp scales by alpha / rank.
    alpha = config["lora_alpha"] * (rank**0.5 if config.get("use_rslora") else 1.0)
    writer = gguf.GGUFWriter(file, found.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
    for name, weight in load_file(adapter / "adapter_model.safetensors").items():
        half = SUFFIX.search(name)
        layer = SUFFIX.sub("", name).removeprefix(PREFIX)
        own = names.get_name(layer)
        if half is None or own is None:
            raise ModelError(f"has {name}, which GGUF has no name for", where=str(adapter))
        if half[1] == "B":
            weight = _ordered(weight, layer, found)
        writer.add_tensor(f"{own}.weight.lora_{half[1].lower()}", weight.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_base(file: Path) -> _Base:
    import gguf

    reader = gguf.GGUFReader(file)

    def value(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    architecture = str(value("general.architecture"))
    queries = int(value(f"{architecture}.attention.head_count"))
    keys = int(value(f"{architecture}.attention.head_count_kv") or queries)
    blocks = int(value(f"{architecture}.block_count"))
    return _Base(architecture, blocks, {"q_proj": queries, "k_proj": keys})


def _check(config: dict[str, Any], base: _Base, adapter: Path) -> None:
    """Raise ModelError where the adapter is more than llama.cpp can add."""
    if config.get("use_dora"):
        found = "is a DoRA adapter, which llama.cpp does not know"
    elif config.get("modules_to_save") or config.get("rank_pattern"):
        found = "has more than plain adapters of one rank"
    elif base.architecture not in KNOWN:
        found = f"is for {base.architecture}, whose adapters are not converted"
    else:
        return
    raise ModelError(found, where=str(adapter), advice="use --engine torch")


def _ordered(weight: Tensor, layer: str, base: _Base) -> Tensor:
    """Rows of B [O, R] in the order of the base's GGUF."""
    heads = base.heads.get(layer.rpartition(".")[2])
    if heads is None or base.architecture not in PAIRED:
        return weight
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
    return torch.swapaxes(halves, 1, 2).reshape(weight.shape).contiguous()
