"""The order of things, stated once: prepare, baselines, train, evaluate, compare, report.

Importing this room loads nothing; each name loads its module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.pipeline.cluster import Cluster, tune_on_ray
    from luthier.pipeline.engines import Engines, Opened, Source, TextReader
    from luthier.pipeline.events import Answered, Event, Note, Ready, StageStarted
    from luthier.pipeline.finished import Board, SideBySide, compare_runs, leaderboards
    from luthier.pipeline.harness import TaskScore, run_harness
    from luthier.pipeline.hyperparameters import Searched, search_settings
    from luthier.pipeline.learning_curve import LearningCurve, draw_learning_curve
    from luthier.pipeline.measuring import open_embed, open_label, open_measure
    from luthier.pipeline.memorising import probe_memory
    from luthier.pipeline.opening import TunedModel, evaluate_run, find_run, open_model
    from luthier.pipeline.preparing import Prepared, prepare
    from luthier.pipeline.probing import probe_general, probe_run
    from luthier.pipeline.readers import Readers
    from luthier.pipeline.starting import check_start
    from luthier.pipeline.systems import kind_of_model
    from luthier.pipeline.teaching import open_teacher
    from luthier.pipeline.trying import Tried, try_systems
    from luthier.pipeline.tuning import Tuned, tune, tune_from

_MODULES = {
    "engines": ("Engines", "Opened", "Source", "TextReader"),
    "cluster": ("Cluster", "tune_on_ray"),
    "events": ("Answered", "Event", "Note", "Ready", "StageStarted"),
    "finished": ("Board", "SideBySide", "compare_runs", "leaderboards"),
    "hyperparameters": ("Searched", "search_settings"),
    "learning_curve": ("LearningCurve", "draw_learning_curve"),
    "measuring": ("open_embed", "open_label", "open_measure"),
    "harness": ("TaskScore", "run_harness"),
    "memorising": ("probe_memory",),
    "opening": ("TunedModel", "evaluate_run", "find_run", "open_model"),
    "preparing": ("Prepared", "prepare"),
    "probing": ("probe_general", "probe_run"),
    "readers": ("Readers",),
    "starting": ("check_start",),
    "systems": ("kind_of_model",),
    "teaching": ("open_teacher",),
    "trying": ("Tried", "try_systems"),
    "tuning": ("Tuned", "tune", "tune_from"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Answered",
    "Engines",
    "Board",
    "Cluster",
    "Event",
    "LearningCurve",
    "Note",
    "Opened",
    "Prepared",
    "Readers",
    "Ready",
    "Searched",
    "SideBySide",
    "Source",
    "StageStarted",
    "TextReader",
    "Tried",
    "Tuned",
    "TunedModel",
    "check_start",
    "compare_runs",
    "draw_learning_curve",
    "evaluate_run",
    "find_run",
    "kind_of_model",
    "leaderboards",
    "open_embed",
    "open_label",
    "open_measure",
    "open_model",
    "open_teacher",
    "prepare",
    "TaskScore",
    "run_harness",
    "probe_general",
    "probe_memory",
    "probe_run",
    "search_settings",
    "try_systems",
    "tune",
    "tune_from",
    "tune_on_ray",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
