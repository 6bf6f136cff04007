"""How a folder says that hidden states become a text's vector: sentence-transformers' own files.

A folder of that library holds a transformer and the modules after it (`modules.json`): pooling,
dense layers, normalisation, and the prompts that stand before texts. A plain encoder has none of
it: its vector is the mean of its tokens, a decoder's its last token. Needs no torch.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from luthier.errors import ModelError
from luthier.models.sources.folders import module_folders

Mode = Literal["mean", "cls", "lasttoken", "max"]
MODES: tuple[Mode, ...] = ("mean", "cls", "lasttoken", "max")
KEYS: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken", "pooling_mode_max_tokens": "max",
}  # fmt: skip
"""The older names of the modes in a pooling's config.json -> mode."""
LABELS_FILE = "labels.json"
"""What the answers of a tuned classifier mean."""
HEAD = "classifier"
"""Subfolder of a classifier's linear head: a dense layer whose outputs are the logits."""


@dataclass(frozen=True)
class Pooling:
    """From hidden states to vectors."""

    mode: Mode = "mean"
    dense: tuple[str, ...] = ()
    """Subfolders of dense layers, in order."""
    normalizes: bool = False
    max_length: int | None = None
    """Tokens of a text that are read."""
    prompts: dict[str, str] = field(default_factory=dict)
    is_sentence_folder: bool = False


def read_pooling(folder: Path, *, is_causal: bool = False) -> Pooling:
    """What a model folder says of pooling. Raises ModelError for what is not computed here."""
    modules = read_json(folder / "modules.json")
    if modules is None:
        return Pooling("lasttoken" if is_causal else "mean")
    module_folders(folder)  # none of them lies outside
    found = Pooling(is_sentence_folder=True)
    for module in modules[1:]:
        kind, path = str(module["type"]).rsplit(".", 1)[-1], str(module["path"])
        if kind == "Pooling":
            found = replace(found, mode=_mode(folder / path / "config.json"))
        elif kind == "Dense" and path == HEAD:
            continue  # answers of a classifier, which are no part of the vector
        elif kind == "Dense":
            found = replace(found, dense=(*found.dense, path))
        elif kind == "Normalize":
            found = replace(found, normalizes=True)
        else:
            raise ModelError(
                f"has a module of the kind {kind}, which is not computed here",
                where=str(folder / "modules.json"),
                accepted="Transformer, Pooling, Dense, Normalize",
            )
    settings = read_json(folder / modules[0]["path"] / "sentence_bert_config.json") or {}
    prompts = (read_json(folder / "config_sentence_transformers.json") or {}).get("prompts") or {}
    limit = settings.get("max_seq_length")
    return replace(found, max_length=limit, prompts={k: v for k, v in prompts.items() if v})


def read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(path)) from error


def _mode(path: Path) -> Mode:
    config = read_json(path) or {}
    named = config.get("pooling_mode")
    wanted = [named] if isinstance(named, str) else list(named or ())
    wanted += [mode for key, mode in KEYS.items() if config.get(key)]
    wanted += [key for key, is_on in config.items() if key.startswith("pooling_mode_")
               and is_on is True and key not in KEYS]  # fmt: skip
    if len(wanted) != 1 or wanted[0] not in MODES or config.get("include_prompt") is False:
        raise ModelError(
            f"pools by {' and '.join(map(str, wanted)) or 'nothing'}"
            + (", without the prompt" if config.get("include_prompt") is False else ""),
            where=str(path),
            accepted=f"one of {', '.join(MODES)}, over prompt and text",
        )
    return cast(Mode, wanted[0])
