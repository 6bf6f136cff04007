"""Names of tuned models, as OpenAI writes them."""

import re

from luthier.jobs.tables import JobRow

KEPT = 3
"""Checkpoints of a job that can be asked: the newest."""

OWNER = "local"
"""Where an organisation's name would stand."""


def alias_of(name: str) -> str:
    """A base model's name without what stands before its last slash, in small letters."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.rpartition("/")[2].lower()).strip("-") or "model"


def model_name(job: JobRow) -> str:
    """Such as ft:smollm2-135m-instruct:local:my-suffix:4kL0Zx9q."""
    parts = job.model.split(":")
    # A model that was tuned before is named after what it started from.
    alias = parts[1] if parts[0] == "ft" and len(parts) > 1 else alias_of(job.model)
    return f"ft:{alias}:{OWNER}:{job.suffix or ''}:{job.id[-8:]}"


def checkpoint_name(job: JobRow, step: int) -> str:
    """Name of a job's model after a step."""
    return f"{model_name(job)}:ckpt-step-{step}"
