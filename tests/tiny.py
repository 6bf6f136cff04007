"""Tiny real models with random weights and a byte-level tokenizer, made in well under a second."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM

from luthier.data import Chat, Message, Place, Role

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WINDOW = 6
TINY: dict[str, object] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(SPECIAL) + 256,
    "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
    "initializer_range": 0.2,
}  # fmt: skip
TINY_VISION: dict[str, object] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "image_size": 28, "patch_size": 14,
}  # fmt: skip
UNSET = object()
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {}, "mistral": {"sliding_window": WINDOW}, "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "phi": {"partial_rotary_factor": 0.5}, "gpt2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.1},
}  # fmt: skip
"""Architectures that run flat -> what their tiny configurations add."""
PADDED_FAMILIES: dict[str, dict[str, object]] = {
    "bloom": {},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1},
}
"""Architectures that do not: positions by distance, attention sinks."""
MULTIMODAL_FAMILIES: dict[str, dict[str, object]] = {
    "gemma3": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "gemma4": {
        "sliding_window": WINDOW, "hidden_size_per_layer_input": 0, "global_head_dim": 8,
        "num_global_key_value_heads": 2, "layer_types": ["sliding_attention", "full_attention"],
        "final_logit_softcapping": 1.0,
    },
}  # fmt: skip
"""Architectures that read images too -> what their tiny text configurations add."""


def write_tokenizer(folder: Path, template: str = CHATML, *, begins: bool = False) -> None:
    """Write the tokenizer files of a model: one token per byte, and the special tokens.

    One that `begins` texts puts a token before each, as Llama's do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    settings = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{SPECIAL[0]} $A", special_tokens=[(SPECIAL[0], 0)]
        )
        settings["bos_token"] = SPECIAL[0]
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(template)


def write_model(
    folder: Path, family: str = "llama", *, seed: int = 0, begins: bool = False, **changes: object
) -> Path:
    """Write a whole model folder: 2 layers, 32 wide, 4 heads over 2 key-value heads.

    `changes` to its configuration add to what its family adds; UNSET takes a setting away.
    """
    own = {**FAMILIES, **PADDED_FAMILIES, **MULTIMODAL_FAMILIES}.get(family, {})
    settings: dict[str, object] = {**TINY, **own, **changes}
    settings = {name: value for name, value in settings.items() if value is not UNSET}
    if family in MULTIMODAL_FAMILIES:
        settings = {"text_config": settings, "vision_config": TINY_VISION}
    write_tokenizer(folder, begins=begins)
    config = AutoConfig.for_model(family, tie_word_embeddings=True, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def chat(*turns: tuple[Role, str], line: int = 1, weight: float = 1.0) -> Chat:
    """A chat of (role, content) pairs, as if read from line `line` of rows.jsonl."""
    messages = tuple(Message(role, content, weight=weight) for role, content in turns)
    return Chat(f"rows:{line}", Place("rows.jsonl", line), messages)
