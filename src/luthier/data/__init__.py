"""A file becomes a frozen, checked dataset. No torch, no tokenizer, no model."""

from luthier.data.datasets import Reading, read_dataset, refuse_errors
from luthier.data.examples import (
    Chat,
    Dataset,
    Finding,
    Message,
    Place,
    Role,
    Row,
    Split,
    ToolCall,
    canonical,
)
from luthier.data.splitting import limit_by_hash, prompt_key

__all__ = [
    "Chat",
    "Dataset",
    "Finding",
    "Message",
    "Place",
    "Reading",
    "Role",
    "Row",
    "Split",
    "ToolCall",
    "canonical",
    "limit_by_hash",
    "prompt_key",
    "read_dataset",
    "refuse_errors",
]
