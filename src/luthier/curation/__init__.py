"""Datasets become better ones: versions made from files and from other versions. No torch.

Importing this room loads nothing; each name loads its module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from luthier.curation.adding import add_files
    from luthier.curation.balance import Measure
    from luthier.curation.candidates import (
        Accepted,
        Decision,
        Imported,
        decide,
        import_logs,
        read_decisions,
    )
    from luthier.curation.cartography import Learnt, learnt_in
    from luthier.curation.checking import CHECKS, Checked, Options, check_rows, read_options
    from luthier.curation.differing import Difference, differ
    from luthier.curation.exporting import export_version
    from luthier.curation.fixing import Fixed, fix_version
    from luthier.curation.growing import (
        Grown,
        Growth,
        Teacher,
        TeacherError,
        check_parted,
        grow_version,
    )
    from luthier.curation.looking import FileSource, RowSource, VersionSource
    from luthier.curation.privacy import find_private, mask
    from luthier.curation.problems import Case, Problem
    from luthier.curation.selecting import (
        Part,
        Selection,
        mix_versions,
        rows_where,
        select_version,
    )
    from luthier.curation.splitting import Parted, Shares, split_version
    from luthier.curation.writing import as_json, data_report

_MODULES = {
    "adding": ("add_files",),
    "balance": ("Measure",),
    "candidates": (
        "Accepted",
        "Decision",
        "Imported",
        "decide",
        "import_logs",
        "read_decisions",
    ),
    "cartography": ("Learnt", "learnt_in"),
    "checking": ("CHECKS", "Checked", "Options", "check_rows", "read_options"),
    "differing": ("Difference", "differ"),
    "exporting": ("export_version",),
    "fixing": ("Fixed", "fix_version"),
    "growing": (
        "Grown",
        "Growth",
        "Teacher",
        "TeacherError",
        "check_parted",
        "grow_version",
    ),
    "looking": ("FileSource", "RowSource", "VersionSource"),
    "privacy": ("find_private", "mask"),
    "problems": ("Case", "Problem"),
    "selecting": ("Part", "Selection", "mix_versions", "rows_where", "select_version"),
    "splitting": ("Parted", "Shares", "split_version"),
    "writing": ("as_json", "data_report"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Accepted",
    "CHECKS",
    "Case",
    "Checked",
    "Decision",
    "Difference",
    "FileSource",
    "Fixed",
    "Grown",
    "Growth",
    "Imported",
    "Learnt",
    "Measure",
    "Options",
    "Part",
    "Parted",
    "Problem",
    "RowSource",
    "Selection",
    "Shares",
    "Teacher",
    "TeacherError",
    "VersionSource",
    "add_files",
    "as_json",
    "check_parted",
    "check_rows",
    "data_report",
    "decide",
    "differ",
    "export_version",
    "find_private",
    "fix_version",
    "grow_version",
    "import_logs",
    "learnt_in",
    "mask",
    "mix_versions",
    "read_decisions",
    "read_options",
    "rows_where",
    "select_version",
    "split_version",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
