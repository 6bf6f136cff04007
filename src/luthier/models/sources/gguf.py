"""A GGUF file becomes a folder of safetensors, once.

The weights are dequantised through transformers' own mapping of names and layouts. What that
mapping leaves out is either put right here (how text is split, every end token the file lists) or
refused (weights without a place, stretched positions, an unknown pre-tokenizer). Invariant: a
folder in the cache computes what the file says, or is not there.
"""

import contextlib
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import ModelError
from luthier.models.sources.caching import file_sha256, make_folder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

VERSION = 2
"""Raised when a conversion changes, so that older results are not used."""

ELSEWHERE = "use the model's safetensors folder or Hub id instead"
END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A converted folder, and the licence the file states."""

    path: Path
    licence: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    type: str
    num_values: int
    is_matrix: bool


@dataclass(frozen=True, slots=True)
class _Header:
    fields: dict[str, Any]
    """Metadata that is no array."""
    tensors: tuple[_Tensor, ...]

    def text(self, key: str) -> str:
        return str(self.fields.get(key, ""))

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")


def convert_gguf(file: Path, cache: Path, observe: Callable[[str], None]) -> ConvertedModel:
    """The folder of a GGUF file, converted now or earlier.

    Raises ModelError when the file is damaged or of a kind that cannot be converted exactly.
    """
    with file.open("rb") as handle:
        magic = handle.read(4)
    if magic != b"GGUF":
        raise ModelError(
            "is not a GGUF file: it begins with other bytes" if magic else "is empty",
            where=str(file),
            advice="fetch it again",
        )

    def build(folder: Path) -> None:
        observe(f"converting {file.name} to safetensors, once")
        header = _read_header(file)
        _check_header(header, file)
        _convert(file, header, folder)

    place = make_folder(cache / "gguf" / f"{file_sha256(file, cache)[:16]}-v{VERSION}", build)
    source = json.loads((place / "source.json").read_text(encoding="utf-8"))
    return ConvertedModel(place, source["licence"])


def _read_header(file: Path) -> _Header:
    import gguf

    try:
        reader = gguf.GGUFReader(file)
        size = file.stat().st_size
        if any(tensor.data_offset + tensor.n_bytes > size for tensor in reader.tensors):
            raise ValueError("it ends before its tensors do")
        array = gguf.GGUFValueType.ARRAY
        fields = {k: f.contents() for k, f in reader.fields.items() if f.types[:1] != [array]}
    except (ValueError, IndexError, OverflowError, KeyError, TypeError, OSError) as error:
        raise ModelError(
            f"is damaged or cut short: {error}", where=str(file), advice="fetch it again"
        ) from error
    tensors = tuple(
        _Tensor(t.name, t.tensor_type.name, int(t.n_elements), len(t.shape) > 1)
        for t in reader.tensors
    )
    return _Header(fields, tensors)


def _check_header(header: _Header, file: Path) -> None:
    from luthier.models.sources.pretokenizers import SPLITTINGS

    tokenizer = header.text("tokenizer.ggml.model")
    if not header.architecture or not tokenizer or not header.tensors:
        raise ModelError(
            "holds no language model with its tokenizer",
            where=str(file),
            accepted="a GGUF file of a whole causal language model",
        )
    splitting = header.text("tokenizer.ggml.pre")
    if tokenizer == "gpt2" and splitting not in SPLITTINGS:
        raise ModelError(
            f"its tokenizer splits text by rules called {splitting!r}, which are not known here"
            if splitting
            else "does not say how its tokenizer splits text (tokenizer.ggml.pre)",
            where=str(file),
            accepted=", ".join(sorted(SPLITTINGS)),
            advice=ELSEWHERE,
        )
    # transformers' mapping drops these, and the model would be another one at longer distances.
    factors = ("rope_freqs", "rope_factors")
    stretched = [t.name for t in header.tensors if t.name.startswith(factors)]
    scaling = header.text(f"{header.architecture}.rope.scaling.type")
    if stretched or scaling not in ("", "none"):
        raise ModelError(
            f"stretches its positions ({stretched[0] if stretched else scaling}), which is lost "
            "in the conversion",
            where=str(file),
            advice=ELSEWHERE,
        )


def _convert(file: Path, header: _Header, folder: Path) -> None:
    from transformers import AutoConfig, PreTrainedTokenizerFast

    # As an absolute path: transformers looks for a bare name in the working folder first.
    location = str(file.resolve())
    try:
        with _quiet():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(file.parent, gguf_file=location)
            config = AutoConfig.from_pretrained(file.parent, gguf_file=location)
            _load(location, config, header).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (ValueError, KeyError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"of architecture {header.architecture!r} cannot be converted: {error}",
            where=str(file),
            advice=ELSEWHERE,
        ) from error
    _write_tokenizer(folder, header)
    _write_settings(folder, header)
    source = {"file": file.name, "licence": header.text("general.license")}
    (folder / "source.json").write_text(json.dumps(source), encoding="utf-8")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' own progress bars and notes off the terminal."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _load(location: str, config: Any, header: _Header) -> "PreTrainedModel":
    import torch

    dtype = _dtype(header)
    model = _load_as(dtype, location, config)
    if not _is_finite(model):  # beyond float16's range: rare, but then all must be kept
        model = _load_as(torch.float32, location, config)
    if not _is_finite(model):
        raise ValueError("its weights are not finite numbers")
    num_stored = _num_stored(header, config)
    num_loaded = sum(t.numel() for t in {t.data_ptr(): t for t in _tensors(model)}.values())
    if num_loaded != num_stored:
        raise ValueError(
            f"it holds {num_stored:,} weights, and transformers has a place for {num_loaded:,}"
        )
    return model


def _dtype(header: _Header) -> "torch.dtype":
    """The smallest precision that keeps the weights: theirs, or float16 for quantised ones.

    Blocks have float16 scales: Q4_1 is d * q + m. On SmolLM2, float16 is off by at most 2^-11 of a
    weight and bfloat16 by 2^-8, at the same size; float32 would be exact and twice as large, for
    digits far below the quantisation's own steps.
    """
    import torch

    types = {tensor.type for tensor in header.tensors if tensor.is_matrix}
    if types <= {"F32"}:
        return torch.float32
    return torch.bfloat16 if types <= {"F32", "BF16"} else torch.float16


def _load_as(dtype: "torch.dtype", location: str, config: Any) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM, GgufConfig

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        Path(location).parent,
        gguf_file=location,
        config=config,
        dtype=dtype,
        # Without it the weights stay packed, and cannot be saved.
        quantization_config=GgufConfig(dequantize=True, gguf_file=location),
        output_loading_info=True,
    )
    model, report = loaded
    if report["missing_keys"]:
        raise ValueError(f"it lacks {', '.join(sorted(report['missing_keys'])[:5])}")
    return model  # type: ignore[no-any-return]


def _tensors(model: "PreTrainedModel") -> list["torch.Tensor"]:
    return list(model.state_dict().values())


def _is_finite(model: "PreTrainedModel") -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(model))


def _num_stored(header: _Header, config: Any) -> int:
    """Weights in the file, without blocks past the last layer (they predict further tokens)."""
    num_layers = config.get_text_config().num_hidden_layers

    def layer(name: str) -> float:
        parts = name.split(".")
        return int(parts[1]) if parts[0] == "blk" else -math.inf

    return sum(t.num_values for t in header.tensors if layer(t.name) < num_layers)


def _write_tokenizer(folder: Path, header: _Header) -> None:
    """Split text as the file says; transformers knows only some of the names, and no prefix."""
    import tokenizers
    from tokenizers import decoders, normalizers, pre_tokenizers

    from luthier.models.sources.pretokenizers import SPLITTINGS

    path = str(folder / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(path)
    if header.text("tokenizer.ggml.model") == "gpt2":
        splitting = SPLITTINGS[header.text("tokenizer.ggml.pre")]
        backend.pre_tokenizer = splitting.pre_tokenizer
        backend.model.ignore_merges = splitting.ignores_merges
        if splitting.composes:
            backend.normalizer = normalizers.NFC()
    elif (
        isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace)
        and header.fields.get("tokenizer.ggml.add_space_prefix") is False
    ):
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        spaces = decoders.Replace("\u2581", " ")
        backend.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse()])
    backend.save(path)


def _write_settings(folder: Path, header: _Header) -> None:
    """Strip what describes this conversion, and say all tokens that end an answer."""
    ends = [header.fields.get(f"tokenizer.ggml.{name}") for name in END_TOKENS]
    known = list(dict.fromkeys(int(end) for end in ends if end is not None))
    adds_start = header.fields.get("tokenizer.ggml.add_bos_token")
    changes: dict[str, dict[str, Any]] = {
        "config.json": {},
        "generation_config.json": {"eos_token_id": known} if known else {},
        "tokenizer_config.json": {} if adds_start is None else {"add_bos_token": bool(adds_start)},
    }
    passing = {
        "quantization_config", "_name_or_path", "_model_name_or_path", "_from_model_config",
        "is_local", "local_files_only",
    }  # fmt: skip
    for name, change in changes.items():
        file = folder / name
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        kept = {k: v for k, v in settings.items() if k not in passing}
        file.write_text(json.dumps(kept | change, indent=2), encoding="utf-8")
