"""Text becomes token ids with character offsets: the model's own tokenizer, read from its folder.

Works on the files every source is brought to (tokenizer.json, tokenizer_config.json,
chat_template.jinja, generation_config.json, config.json) through the tokenizers library, so that
checking and previewing data never loads torch.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import tokenizers

from luthier.errors import ModelError, TemplateError
from luthier.tokens.templates import ChatTemplate

DOCUMENT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<eos>", "</s>")
"""Tokens that pre-training puts after a document; a chat model's own end ends turns instead."""
AT_ONCE = 1000
"""Raw texts that are encoded together, on all cores."""
SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Ids of a text and, per id, the characters [start, end) it covers."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True)
class Tokenizer:
    """A model's tokenizer, its chat template, and the ids its generation stops on."""

    backend: tokenizers.Tokenizer
    chat_template: ChatTemplate | None
    """None for a model that was made for raw text."""
    stop_ids: frozenset[int]
    """Ids that end a generation: the union of what generation config, config and tokenizer say."""
    pad_id: int
    context_length: int | None
    """Longest sequence the model was made for, in tokens, if its config says."""
    files: tuple[Path, Path | None] | None = None
    """Folder it was read from, and the chat template instead of the model's own."""
    special: Mapping[str, str] = field(default_factory=dict)
    """Texts of special tokens by their usual names, such as bos_token."""

    @classmethod
    def load(
        cls, folder: Path, chat_template: Path | None = None, *, writes: bool = True
    ) -> "Tokenizer":
        """Read from a model folder; `chat_template` replaces the model's own.

        A model that `writes` nothing needs no token that ends an answer.
        Raises ModelError for missing or broken files, TemplateError for a broken template.
        """
        path = folder / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust library raises plain Exception for every failure
            raise ModelError(
                f"cannot be read: {error}", where=str(path), advice="fetch the model again"
            ) from error
        backend.no_truncation()
        backend.no_padding()
        settings = _read_json(folder / "tokenizer_config.json")
        config = _read_json(folder / "config.json")
        special = _special_tokens(settings)
        source = _template_source(folder, settings, chat_template)
        template = None if source is None else ChatTemplate(source, special)
        stop_ids = _stop_ids(folder, config, backend.token_to_id(special.get("eos_token", "")))
        if writes and not stop_ids:
            raise ModelError(
                "names no token that ends an answer",
                where=str(folder),
                accepted="eos_token_id in generation_config.json or config.json",
            )
        pad = config.get("pad_token_id")
        return cls(
            backend,
            template,
            frozenset(stop_ids),
            pad_id=pad if isinstance(pad, int) and pad >= 0 else min(stop_ids, default=0),
            context_length=config.get("max_position_embeddings"),
            files=(folder, chat_template) if writes else None,
            special=special,
        )

    @property
    def template(self) -> ChatTemplate:
        """The chat template; TemplateError when the model has none."""
        if self.chat_template is None:
            raise TemplateError(
                "the model has no chat template",
                accepted="chat_template.jinja, or chat_template in tokenizer_config.json",
                advice="choose an instruct model, or name a Jinja file in model.chat_template",
            )
        return self.chat_template

    def encode(self, text: str) -> Tokenized:
        """Ids and offsets of rendered text; special tokens in it count as such, none is added."""
        encoding = self.backend.encode(str.__str__(text), add_special_tokens=False)
        return Tokenized(encoding.ids, encoding.offsets)

    def encode_opening(self, text: str) -> list[int]:
        """Ids of a text that something is to follow, after what the tokenizer begins texts with."""
        begin = self.special.get("bos_token", "")
        has_begun = bool(begin) and text.startswith(begin)
        return self.backend.encode(text, add_special_tokens=not has_begun).ids

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of raw texts as in pre-training: what the tokenizer puts around each, and its end."""
        known = (self.backend.token_to_id(token) for token in DOCUMENT_ENDS)
        end = next((i for i in known if i is not None), min(self.stop_ids))
        parts = (texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE))
        encodings = chain.from_iterable(map(self.backend.encode_batch_fast, parts))
        found = (list(each.ids) for each in encodings)
        return [ids if ids[-1:] == [end] else [*ids, end] for ids in found]

    def decode(self, ids: list[int], *, keep_special: bool = False) -> str:
        """Text of ids."""
        return self.backend.decode(ids, skip_special_tokens=not keep_special)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that ids depend on; empty where they depend on the time of day."""
        source = self.chat_template.source if self.chat_template else ""
        if "strftime_now" in source:
            return ""
        special = self.chat_template.special_tokens if self.chat_template else {}
        parts = (self.backend.to_str(), source, repr(special), repr(sorted(self.stop_ids)))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def vocabulary_size(self) -> int:
        """Number of ids, added tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read: {error}", where=str(path)) from error
    return loaded if isinstance(loaded, dict) else {}


def _special_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """Names templates use -> token text; older files hold an object with "content"."""
    found = {}
    for name in SPECIAL_TOKEN_NAMES:
        token = settings.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            found[name] = text
    return found


def _template_source(folder: Path, settings: dict[str, Any], chosen: Path | None) -> str | None:
    path = chosen or folder / "chat_template.jinja"
    if chosen or path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"cannot be read: {error}", where=str(path)) from error
    template = settings.get("chat_template")
    if isinstance(template, list):  # several named templates; the default one is for plain chats
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _stop_ids(folder: Path, config: dict[str, Any], eos_id: int | None) -> set[int]:
    stop: set[int] = set() if eos_id is None else {eos_id}
    for settings in (_read_json(folder / "generation_config.json"), config):
        value = settings.get("eos_token_id")
        stop |= {value} if isinstance(value, int) else set(value or ())
    return stop
