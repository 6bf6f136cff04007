"""A file becomes a frozen, checked dataset. No torch, no tokenizer, no model."""

from luthier.data.datasets import FILES, Reading, Source, read_dataset, refuse_errors, with_test
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
from luthier.data.exports import EXPORTS, export_rows
from luthier.data.formats import RowReader, example_of
from luthier.data.labelled import LABEL_FIELDS
from luthier.data.labels import (
    LabelKind,
    LabelSet,
    are_grades,
    as_number,
    label_kind,
    read_label_set,
)
from luthier.data.opening import kind_of
from luthier.data.reading import READERS, Report, hash_bytes, read_rows
from luthier.data.retrieval import Collection, collection_of, read_collection
from luthier.data.splitting import limit_by_hash, prompt_key

__all__ = [
    "EXPORTS",
    "FILES",
    "LABEL_FIELDS",
    "READERS",
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
    "Report",
    "Role",
    "Row",
    "RowReader",
    "Source",
    "Split",
    "Text",
    "ToolCall",
    "are_grades",
    "as_chat",
    "as_number",
    "canonical",
    "collection_of",
    "example_of",
    "export_rows",
    "hash_bytes",
    "kind_of",
    "label_kind",
    "limit_by_hash",
    "prompt_key",
    "read_collection",
    "read_dataset",
    "read_label_set",
    "read_rows",
    "refuse_errors",
    "with_test",
]
