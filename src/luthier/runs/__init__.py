"""Remembers: runs, datasets, their records, and the database that finds them. No torch."""

from luthier.runs.answers import KeptAnswers
from luthier.runs.contents import Content, KeptRow, NewRow
from luthier.runs.datasets import Datasets, Origin, Version
from luthier.runs.environment import Environment, capture_environment, memory_bytes, num_cores
from luthier.runs.files import JsonLines, atomic_file, atomic_folder, write_atomically
from luthier.runs.locks import instant_lock, is_locked
from luthier.runs.mirror import Mirror
from luthier.runs.records import RunRecord, Status
from luthier.runs.row_losses import LEARNT_ROWS, UNKNOWN, RowLosses
from luthier.runs.votes import Votes
from luthier.runs.workspace import Run, Workspace, utc_now

__all__ = [
    "instant_lock",
    "is_locked",
    "Content",
    "Datasets",
    "Environment",
    "JsonLines",
    "KeptAnswers",
    "KeptRow",
    "LEARNT_ROWS",
    "Mirror",
    "NewRow",
    "Origin",
    "RowLosses",
    "Run",
    "RunRecord",
    "Status",
    "UNKNOWN",
    "Version",
    "Votes",
    "Workspace",
    "atomic_file",
    "atomic_folder",
    "capture_environment",
    "memory_bytes",
    "num_cores",
    "utc_now",
    "write_atomically",
]
