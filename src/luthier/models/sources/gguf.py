"""A GGUF file becomes a folder of safetensors, once.

The weights are dequantised through transformers' own mapping and kept in bfloat16. The tokenizer's
pre-tokenizer is set by the file's own statement (`tokenizer.ggml.pre`), which that mapping ignores;
an unknown one is refused, because guessing it would split text otherwise than in training.
"""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import ModelError, StorageError
from luthier.models.sources.folders import hash_file

VERSION = 1
"""Raised when a conversion changes, so that older results are not used."""

GPT2 = "(?:'s|'t|'re|'ve|'m|'ll|'d)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
LLAMA3 = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
QWEN2 = LLAMA3.replace("\\p{N}{1,3}", "\\p{N}")


def _by_regex(pattern: str) -> dict[str, Any]:
    """Split by a regular expression, then bytes as letters."""
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


_SINGLE_DIGITS = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, _byte_level(use_regex=True)],
}
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "default": _byte_level(use_regex=True),
    "gpt-2": _byte_level(use_regex=True),
    "smollm": _SINGLE_DIGITS,
    "llama-bpe": _by_regex(LLAMA3),
    "qwen2": _by_regex(QWEN2),
}
"""Names of tokenizer.ggml.pre -> pre-tokenizer, as llama.cpp's regular expressions have them."""


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A converted folder, and the licence the file states."""

    path: Path
    licence: str


@dataclass(frozen=True, slots=True)
class _Header:
    architecture: str
    tokenizer: str
    pre_tokenizer: str
    licence: str


def convert_gguf(file: Path, cache: Path, observe: Callable[[str], None]) -> ConvertedModel:
    """The folder of a GGUF file, converted now or earlier.

    Raises ModelError when the file is damaged or of a kind that cannot be converted exactly.
    """
    sha256 = _remembered_hash(file, cache)
    place = cache / "gguf" / f"{sha256[:16]}-v{VERSION}"
    if not (place / "config.json").is_file():
        observe(f"converting {file.name} to safetensors, once")
        header = _read_header(file)
        _write_once(place, lambda folder: _convert(file, header, folder))
    source = json.loads((place / "source.json").read_text(encoding="utf-8"))
    return ConvertedModel(place, source["licence"])


def _remembered_hash(file: Path, cache: Path) -> str:
    stat = file.stat()
    stamp = f"{file.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    memory = cache / "hashes" / f"gguf-{hashlib.sha256(stamp.encode()).hexdigest()}"
    if memory.is_file():
        return memory.read_text()
    found = hash_file(file)
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(found)
    return found


def _write_once(place: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder that appears complete or not at all; two processes may race harmlessly."""
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        write(unfinished)
        if not place.exists():
            unfinished.rename(place)
    except OSError as error:
        if not place.exists():
            raise StorageError(
                f"cannot be written: {error}", where=str(place), advice="free some disk space"
            ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _read_header(file: Path) -> _Header:
    import gguf

    try:
        reader = gguf.GGUFReader(file)
        for tensor in reader.tensors:
            if tensor.data_offset + tensor.n_bytes > file.stat().st_size:
                raise ValueError("the file ends before its tensors do")
    except (ValueError, IndexError, OverflowError, KeyError, OSError) as error:
        raise ModelError(
            f"is not a whole GGUF file: {error}", where=str(file), advice="fetch it again"
        ) from error

    def text(key: str) -> str:
        found = reader.fields.get(key)
        return str(found.contents()) if found else ""

    header = _Header(
        text("general.architecture"),
        text("tokenizer.ggml.model"),
        text("tokenizer.ggml.pre"),
        text("general.license"),
    )
    if not header.architecture or not header.tokenizer:
        raise ModelError(
            "holds no language model with its tokenizer",
            where=str(file),
            accepted="a GGUF file of a whole causal language model",
        )
    if header.tokenizer == "gpt2" and (header.pre_tokenizer or "default") not in PRE_TOKENIZERS:
        raise ModelError(
            f"its tokenizer splits text by rules called {header.pre_tokenizer!r}, "
            "which are not known here",
            where=str(file),
            accepted=", ".join(PRE_TOKENIZERS),
            advice="use the model's safetensors folder or Hub id instead",
        )
    return header


def _convert(file: Path, header: _Header, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
            # bfloat16 keeps float32's range; its rounding (2^-9) is below the 4- and 8-bit steps
            # the file was quantised with, and it is what the frozen weights are computed in.
            model = AutoModelForCausalLM.from_pretrained(
                str(file.parent),
                gguf_file=file.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True, gguf_file=file.name),
            )
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (ValueError, KeyError, RuntimeError, NotImplementedError, ImportError) as error:
        raise ModelError(
            f"of architecture {header.architecture!r} cannot be converted: {error}",
            where=str(file),
            advice="use the model's safetensors folder or Hub id instead",
        ) from error
    if header.tokenizer == "gpt2":
        _set_pre_tokenizer(folder / "tokenizer.json", header.pre_tokenizer or "default")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    source = {"file": file.name, "licence": header.licence}
    (folder / "source.json").write_text(json.dumps(source), encoding="utf-8")


def _set_pre_tokenizer(file: Path, name: str) -> None:
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = PRE_TOKENIZERS[name]
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
