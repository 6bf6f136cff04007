"""A file becomes a frozen, checked dataset. No torch, no tokenizer, no model."""

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

__all__ = [
    "Chat",
    "Dataset",
    "Finding",
    "Message",
    "Place",
    "Role",
    "Row",
    "Split",
    "ToolCall",
    "canonical",
]
