"""An example becomes ids with a proven loss mask, and a ledger of what was dropped. No torch."""

from luthier.tokens.encoded import (
    IGNORED,
    Encoded,
    EncodedExample,
    EncodedPair,
    EncodedRated,
)
from luthier.tokens.encoding import encode_chat, encode_pair, encode_prompt, encode_text
from luthier.tokens.ledger import Dropped, EncodedSplit, Ledger, check_ledger, encode_split
from luthier.tokens.preview import Stretch, preview_page, shown_sequences, stretches
from luthier.tokens.templates import ChatTemplate
from luthier.tokens.tokenizer import Tokenized, Tokenizer

__all__ = [
    "IGNORED",
    "ChatTemplate",
    "Dropped",
    "Encoded",
    "EncodedExample",
    "EncodedPair",
    "EncodedRated",
    "EncodedSplit",
    "Ledger",
    "Stretch",
    "Tokenized",
    "Tokenizer",
    "check_ledger",
    "encode_chat",
    "encode_pair",
    "encode_prompt",
    "encode_split",
    "encode_text",
    "preview_page",
    "shown_sequences",
    "stretches",
]
