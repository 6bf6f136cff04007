"""The README.md of a tuned model's folder: what it is, what of, and how it is used."""

from luthier.pipeline.preparing import Prepared
from luthier.recipe import Classify
from luthier.runs import Run

CARD = "README.md"
MAX_LABELS = 50


def card_of(prepared: Prepared, run: Run) -> str:
    """A model card as hubs read it: Markdown after a head of YAML."""
    method, labels = prepared.recipe.method, prepared.labels
    is_own = isinstance(method, Classify) and method.head == "own"
    library = "transformers" if is_own else "sentence-transformers"
    kind = "text-classification" if method.kind == "classify" else "sentence-similarity"
    source = prepared.source
    known = source.revision or f"weights with SHA-256 {source.sha256[:16]}"
    lines = [
        "---", f"library_name: {library}", f"pipeline_tag: {kind}", "tags:", "- luthier", "---",
        "", f"# {run.record.name}", "",
        f"Tuned from `{source.source}` ({known}; licence: {source.licence or 'unknown'}) on "
        f"{len(prepared.train.examples):,} rows, by Luthier's run {run.id}. "
        "What it scores beside simple methods is in the report of that run.",
    ]  # fmt: skip
    if labels is not None and labels.kind != "number":
        more = f" and {labels.num_labels - MAX_LABELS} more" * (labels.num_labels > MAX_LABELS)
        named = ", ".join(f"`{name}`" for name in labels.names[:MAX_LABELS])
        lines += ["", f"Labels: {named}{more}."]
    lines += ["", f"Use: `luthier predict {run.id} --input texts.jsonl`, or {library}.", ""]
    return "\n".join(lines)
