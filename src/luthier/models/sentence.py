"""From hidden states to vectors as `pooling` says, and the folder that says it again.

What is read is written as it was found, so that a tuned folder loads in sentence-transformers with
equal vectors.
"""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from luthier.errors import ModelError
from luthier.models.pooling import HEAD, KEYS, LABELS_FILE, Mode, Pooling, read_json
from luthier.models.texts import TextBatch

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU,
}  # fmt: skip


def pool(states: Tensor, batch: TextBatch, mode: Mode) -> Tensor:
    """Vectors [D, H] in float32 of the distinct texts, from hidden states [T, H]."""
    if mode == "cls":
        return states[batch.starts].float()
    if mode == "lasttoken":
        return states[batch.lasts].float()
    rows = states.new_zeros((len(batch.lengths) + 1, states.shape[1]), dtype=torch.float32)
    if mode == "max":
        owners = batch.owners[:, None].expand_as(states)
        rows = rows.scatter_reduce(0, owners, states.float(), "amax", include_self=False)
        return rows[:-1]
    # A mean in float32, whatever the states are in.
    rows = rows.index_add(0, batch.owners, states.float())
    return rows[:-1] / batch.lengths[:, None]


def read_dense(folder: Path, pooling: Pooling) -> nn.Sequential:
    """The dense layers after pooling, in float32."""
    layers: list[nn.Module] = []
    for path in pooling.dense:
        layers += _read_layer(folder / path)
    return nn.Sequential(*layers)


def read_linear_head(folder: Path) -> nn.Linear | None:
    """The head that a tuned classifier was saved with, in float32; None where there is none."""
    if not (folder / HEAD / "config.json").is_file():
        return None
    return cast(nn.Linear, _read_layer(folder / HEAD)[0])


def _read_layer(folder: Path) -> list[nn.Module]:
    config = read_json(folder / "config.json") or {}
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = ACTIVATIONS.get(activation.rsplit(".", 1)[-1])
    weights = folder / "model.safetensors"
    if kind is None or not weights.is_file():
        raise ModelError(
            f"has {'no model.safetensors' if kind else f'the activation {activation}'}",
            where=str(folder),
            accepted=f"safetensors, and an activation among {', '.join(ACTIVATIONS)}",
        )
    linear = nn.Linear(config["in_features"], config["out_features"], config.get("bias", True))
    found = load_file(weights)
    linear.load_state_dict({key.removeprefix("linear."): found[key] for key in found})
    return [linear.float(), kind()]


def write_sentence_folder(
    folder: Path,
    pooling: Pooling,
    source: Path,
    dense: nn.Sequential,
    head: nn.Linear | None,
    *,
    width: int,
) -> None:
    """Write what stands beside the transformer's files in a folder of sentence-transformers.

    What the source has is written as it is; `width` is that of the hidden states.
    """
    if pooling.is_sentence_folder:
        for file in source.rglob("*.json"):
            relative = file.relative_to(source)
            first = relative.parts[0]
            is_left_out = first in (HEAD, LABELS_FILE) or first.startswith(".")
            if not is_left_out and not (folder / relative).exists():
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / relative)
    else:
        _write_modules(folder, pooling, width)
    _write_prompts(folder, pooling)
    linears = [module for module in dense if isinstance(module, nn.Linear)]
    for path, linear in zip(pooling.dense, linears, strict=True):
        _write_weights(folder / path, linear)
    modules = [m for m in read_json(folder / "modules.json") if m["path"] != HEAD]
    if head is not None:
        modules = _with_head(folder, head, modules)
    _write(folder / "modules.json", modules)


def _write_weights(folder: Path, linear: nn.Linear) -> None:
    weights = {f"linear.{k}": v.detach().contiguous() for k, v in linear.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def _with_head(folder: Path, head: nn.Linear, modules: list[dict[str, Any]]) -> list[Any]:
    """Write the head; the modules that it stands after, and it."""
    config = {
        "in_features": head.in_features,
        "out_features": head.out_features,
        "bias": head.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    _write(folder / HEAD / "config.json", config)
    _write_weights(folder / HEAD, head)
    # The head is given vectors of any length.
    kept = [module for module in modules if not module["type"].endswith(".Normalize")]
    kind = "sentence_transformers.models.Dense"
    return [*kept, {"idx": len(kept), "name": str(len(kept)), "path": HEAD, "type": kind}]


def _write_modules(folder: Path, pooling: Pooling, width: int) -> None:
    kinds = ["Transformer", "Pooling", *(["Normalize"] * pooling.normalizes)]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": pooling.max_length})
    modes = {key: mode == pooling.mode for key, mode in KEYS.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})


def _write_prompts(folder: Path, pooling: Pooling) -> None:
    path = folder / "config_sentence_transformers.json"
    settings = read_json(path) or {}
    if pooling.prompts:
        settings["prompts"] = {**(settings.get("prompts") or {}), **pooling.prompts}
    settings.setdefault("similarity_fn_name", "cosine")
    _write(path, settings)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
