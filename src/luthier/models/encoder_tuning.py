"""What learns in a model that reads whole texts, and the folder it becomes.

The head of a classifier always learns, and dense layers with their body. What is saved is a whole
model folder, adapters merged in float32: one that transformers loads where the head is the
architecture's own, and else one that sentence-transformers loads.
"""

import shutil
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils.save_and_load import set_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier.errors import ConfigError
from luthier.models.adapters import attach_adapters, ranks_of
from luthier.models.blocks import last_blocks
from luthier.models.encoders import Encoder, load_encoder
from luthier.models.narrow import narrow_embedding, widen_embedding
from luthier.models.pooling import LABELS_FILE
from luthier.models.sentence import write_sentence_folder
from luthier.recipe import Embeddings, Full, HeadOnly, LastLayers, LoRA, Tuning

OF_SENTENCES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
"""Files that make a folder one of sentence-transformers."""
CARD = "README.md"
"""What hubs show of a folder: the source's says nothing of what it became."""
WEIGHTS = (".safetensors", ".bin", ".gguf", ".onnx", ".h5", ".msgpack", ".ot")


def make_encoder_trainable(
    encoder: Encoder, tuning: Tuning, seed: int, used: Iterable[int] | None = None
) -> None:
    """Thaw or add the weights that are to learn; equal seeds start equal adapters.

    `used` are the ids that training texts hold; without weight decay, embeddings of others cannot
    learn, and are left out. `widen_embedding` puts them back.
    Raises ModelError or ConfigError when the tuning names what the model does not have.
    """
    network = encoder.network
    if network.head is not None:
        network.head.requires_grad_(True)
    if isinstance(tuning, HeadOnly):
        if network.head is None:
            raise ConfigError(
                "a model of vectors has no head that could learn alone",
                where="tuning.kind",
                accepted="lora, full, last-layers, or embeddings with method: embed",
            )
        return
    network.dense.requires_grad_(True)
    if isinstance(tuning, LoRA):
        layers = body_layers(encoder.base)
        network.body = attach_adapters(encoder.base, layers, tuning, seed, "FEATURE_EXTRACTION")
    elif isinstance(tuning, Full):
        encoder.base.requires_grad_(True)
        _freeze_unused(encoder)
        if used is not None:
            narrow_embedding(encoder.base, used)
    elif isinstance(tuning, Embeddings):
        encoder.base.get_input_embeddings().requires_grad_(True)
        if used is not None:
            narrow_embedding(encoder.base, used)
    elif isinstance(tuning, LastLayers):
        for block in last_blocks(encoder.base, tuning.count):
            block.requires_grad_(True)


def _freeze_unused(encoder: Encoder) -> None:
    """A pooler that no answer goes through learns nothing."""
    pooler = getattr(encoder.base, "pooler", None)
    if isinstance(pooler, nn.Module) and encoder.own_head is None:
        pooler.requires_grad_(False)


def check_encoder_tuning(model: PreTrainedModel, tuning: Tuning) -> None:
    """Raise ModelError when the tuning names what the body does not have."""
    if isinstance(tuning, LoRA):
        ranks_of(body_layers(model), tuning)
    elif isinstance(tuning, LastLayers):
        last_blocks(model, tuning.count)


def body_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Full name -> linear layer of a body, without poolers, which stand after the last block."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and "pooler" not in name.split(".")
    }


@torch.no_grad()
def save_encoder(encoder: Encoder, folder: Path, source: Path, labels: Sequence[str] = ()) -> None:
    """Write the tuned model as a folder like `source`, in float32.

    `labels` are the names of a classifier's answers.
    """
    widen_embedding(encoder.base)
    head = encoder.network.head
    is_own = encoder.classifier is not None
    answers = len(labels) or (_outputs(head) if head is not None else 0)
    fresh = load_encoder(
        source,
        dtype=torch.float32,
        device=torch.device("cpu"),
        answers=answers,
        head="own" if is_own else "pooled",
    )
    body = encoder.network.body
    if isinstance(body, PeftModel):
        config = body.peft_config["default"]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            network: Any = get_peft_model(fresh.base, config)
            set_peft_model_state_dict(network, get_peft_model_state_dict(body))
            network.merge_and_unload()
    else:
        fresh.base.load_state_dict(_float32(encoder.base))
    for part, tuned in ((fresh.network.dense, encoder.network.dense), (fresh.network.head, head)):
        if part is not None and tuned is not None:
            part.load_state_dict(_float32(tuned))
    model = fresh.classifier or fresh.base
    _name_labels(model, labels)
    model.save_pretrained(str(folder))
    _copy_others(source, folder, without=OF_SENTENCES if is_own else ())
    if not is_own:
        linear = fresh.network.head if isinstance(fresh.network.head, nn.Linear) else None
        width = int(fresh.base.config.hidden_size)
        write_sentence_folder(
            folder, encoder.pooling, source, fresh.network.dense, linear, width=width
        )


def _float32(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.float().cpu() for name, value in module.state_dict().items()}


def _outputs(head: nn.Module) -> int:
    """Answers that a head gives: outputs of its last linear layer."""
    return [m for m in head.modules() if isinstance(m, nn.Linear)][-1].out_features


def _name_labels(model: PreTrainedModel, labels: Sequence[str]) -> None:
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}


def _copy_others(source: Path, folder: Path, without: Sequence[str]) -> None:
    """The tokenizer's and other files of the folder itself, but what its weights meant."""
    for file in source.iterdir():
        is_weights = file.suffix in WEIGHTS or ".index." in file.name
        is_left_out = file.name in (LABELS_FILE, CARD, *without)
        if file.is_file() and not is_weights | is_left_out and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def fold_scale(head: nn.Module, mean: float, spread: float) -> None:
    """Let a head that learnt standardised numbers answer in their own unit."""
    last = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= spread
        if last.bias is not None:
            last.bias.copy_(last.bias * spread + mean)
