"""A file becomes a frozen, checked dataset. No torch, no tokenizer, no model."""

from luthier.data.datasets import Reading, read_dataset, refuse_errors
from luthier.data.examples import (
    Chat,
    Dataset,
    Example,
    Finding,
    LabelForm,
    Labelled,
    Message,
    Pair,
    Place,
    Preference,
    Query,
    Rated,
    Role,
    Row,
    Split,
    Text,
    ToolCall,
    as_chat,
    canonical,
)
from luthier.data.labels import LabelKind, LabelSet, as_number, label_kind, read_label_set
from luthier.data.reading import read_rows
from luthier.data.retrieval import Collection, collection_of, read_collection
from luthier.data.splitting import limit_by_hash, prompt_key

__all__ = [
    "Chat",
    "Collection",
    "Dataset",
    "Example",
    "Finding",
    "LabelForm",
    "LabelKind",
    "LabelSet",
    "Labelled",
    "Message",
    "Pair",
    "Place",
    "Preference",
    "Query",
    "Rated",
    "Reading",
    "Role",
    "Row",
    "Split",
    "Text",
    "ToolCall",
    "as_chat",
    "as_number",
    "canonical",
    "collection_of",
    "label_kind",
    "limit_by_hash",
    "prompt_key",
    "read_collection",
    "read_dataset",
    "read_label_set",
    "read_rows",
    "refuse_errors",
]
