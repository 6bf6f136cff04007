"""A file becomes a frozen, checked dataset. No torch, no tokenizer, no model."""

from luthier.data.datasets import Reading, read_dataset, refuse_errors
from luthier.data.examples import (
    Chat,
    Dataset,
    Example,
    Finding,
    Message,
    Place,
    Preference,
    Rated,
    Role,
    Row,
    Split,
    Text,
    ToolCall,
    as_chat,
    canonical,
)
from luthier.data.splitting import limit_by_hash, prompt_key

__all__ = [
    "Chat",
    "Dataset",
    "Example",
    "Finding",
    "Message",
    "Place",
    "Preference",
    "Rated",
    "Reading",
    "Role",
    "Row",
    "Split",
    "Text",
    "ToolCall",
    "as_chat",
    "canonical",
    "limit_by_hash",
    "prompt_key",
    "read_dataset",
    "refuse_errors",
]
