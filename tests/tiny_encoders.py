"""Tiny real encoders with random weights, and a tokenizer of words for them."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from luthier.tokens import EncodedText
from tiny import write_model

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = [
    "a",
    "an",
    "the",
    "is",
    "was",
    "light",
    "lamp",
    "on",
    "off",
    "turn",
    "switch",
    "kitchen",
    "hall",
    "play",
    "music",
    "song",
    "stop",
    "louder",
    "volume",
    "what",
    "weather",
    "rain",
    "sun",
    "today",
    "tomorrow",
    "red",
    "green",
    "blue",
    "good",
    "bad",
    "fine",
    "awful",
    "please",
    "now",
    "one",
    "two",
]
TINY_ENCODER: dict[str, object] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": len(SPECIAL) + 26 + 26 + len(WORDS) + 8, "max_position_embeddings": 96,
    "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
ENCODERS: dict[str, dict[str, object]] = {
    "bert": {},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "modernbert": {"local_attention": 6, "global_attn_every_n_layers": 2, "num_hidden_layers": 3,
                   "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    "electra": {"embedding_size": 32},
}  # fmt: skip
"""Architectures that run flat -> what their tiny configurations add."""
PADDED_ENCODERS: dict[str, dict[str, object]] = {"mpnet": {"pad_token_id": 1}}
"""Architectures that do not: positions by distance."""


def write_encoder_tokenizer(folder: Path) -> None:
    """Write a tokenizer of known words, and of letters for all others."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(ord("a") + i) for i in range(26)]
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "cls_token": "[CLS]",
        "sep_token": "[SEP]", "unk_token": "[UNK]", "model_max_length": 96,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_encoder(
    folder: Path, family: str = "bert", *, seed: int = 0, sentence: str = "", **changes: object
) -> Path:
    """Write a whole encoder folder; `sentence` names a pooling for a sentence-transformers one."""
    write_encoder_tokenizer(folder)
    own = {**ENCODERS, **PADDED_ENCODERS}[family]
    config = AutoConfig.for_model(family, **{**TINY_ENCODER, **own, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModel.from_config(config, dtype=torch.float32).save_pretrained(folder)
    if sentence:
        write_modules(folder, sentence)
    return folder


def write_modules(folder: Path, mode: str, *, normalizes: bool = True) -> None:
    """Make a model folder one of sentence-transformers."""
    kinds = ["Transformer", "Pooling", *(["Normalize"] * normalizes)]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "",
         "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    config = {"word_embedding_dimension": 32, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def write_decoder(folder: Path) -> Path:
    """Write a tiny decoder folder, whose body can be read with."""
    write_model(folder, pad_token_id=0)
    AutoModelForCausalLM.from_pretrained(folder)  # it is whole
    return folder


def some_texts(count: int = 9, *, longest: int = 40, seed: int = 0) -> list[EncodedText]:
    """Texts of random ids and lengths, a few of them of two parts, two of them equal."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for i in range(count):
        length = int(torch.randint(3, longest, (), generator=generator))
        ids = torch.randint(5, 60, (length,), generator=generator).tolist()
        texts.append(EncodedText(ids, length // 2 if i % 3 == 2 else 0))
    return [*texts, texts[0]]
