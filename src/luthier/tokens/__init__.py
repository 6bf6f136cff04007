"""An example becomes ids with a proven loss mask, and a ledger of what was dropped. No torch."""

from luthier.tokens.calls import CallForm, call_form
from luthier.tokens.encoded import (
    IGNORED,
    Encoded,
    EncodedExample,
    EncodedPair,
    EncodedRated,
)
from luthier.tokens.encoding import encode_chat, encode_pair, encode_prompt, encode_text
from luthier.tokens.kept_ids import KeptIds
from luthier.tokens.ledger import Dropped, EncodedSplit, Ledger, check_ledger, encode_split
from luthier.tokens.preview import (
    Shown,
    Stretch,
    preview_page,
    shown_example,
    shown_sequences,
    shown_texts,
    stretches,
)
from luthier.tokens.templates import ChatTemplate
from luthier.tokens.texts import (
    Cut,
    EncodedText,
    EncodedTexts,
    TextSplit,
    encode_texts,
    read_texts,
)
from luthier.tokens.tokenizer import Tokenized, Tokenizer

__all__ = [
    "IGNORED",
    "CallForm",
    "ChatTemplate",
    "Cut",
    "Dropped",
    "Encoded",
    "EncodedExample",
    "EncodedPair",
    "EncodedRated",
    "EncodedSplit",
    "EncodedText",
    "EncodedTexts",
    "KeptIds",
    "Ledger",
    "Shown",
    "Stretch",
    "TextSplit",
    "Tokenized",
    "Tokenizer",
    "call_form",
    "check_ledger",
    "encode_chat",
    "encode_pair",
    "encode_prompt",
    "encode_split",
    "encode_text",
    "encode_texts",
    "preview_page",
    "read_texts",
    "shown_example",
    "shown_sequences",
    "shown_texts",
    "stretches",
]
