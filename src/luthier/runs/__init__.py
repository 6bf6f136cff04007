"""Remembers: run folders, their records, and the database that finds them. No torch."""

from luthier.runs.environment import Environment, capture_environment, memory_bytes, num_cores
from luthier.runs.files import JsonLines, atomic_folder, write_atomically
from luthier.runs.mirror import Mirror
from luthier.runs.records import RunRecord, Status
from luthier.runs.workspace import Run, Workspace, utc_now

__all__ = [
    "Environment",
    "JsonLines",
    "Mirror",
    "Run",
    "RunRecord",
    "Status",
    "Workspace",
    "atomic_folder",
    "capture_environment",
    "memory_bytes",
    "num_cores",
    "utc_now",
    "write_atomically",
]
