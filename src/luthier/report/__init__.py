"""Results become a page: pictures, tables, a JSON. No torch, no network."""

from luthier.report.data_page import (
    DataReport,
    FoundProblem,
    FoundRow,
    GroupRate,
    Lengths,
    render_data_page,
)
from luthier.report.learning_curve import CurvePoint, render_curve_page
from luthier.report.page import render_html
from luthier.report.pictures import cartography_picture
from luthier.report.record import read_report, to_json
from luthier.report.search_page import Attempt, render_search_page
from luthier.report.svg import shortened, visible
from luthier.report.values import (
    Differing,
    DroppedRow,
    Facts,
    LedgerSummary,
    NextStep,
    RecipeLine,
    ReportInput,
    RunLine,
    Scalar,
    SplitLedger,
    StageTime,
    StepPoint,
    TextDetails,
    ValidationPoint,
)
from luthier.report.writing import ReportPaths, write_report

__all__ = [
    "Attempt",
    "render_search_page",
    "CurvePoint",
    "render_curve_page",
    "DataReport",
    "Differing",
    "DroppedRow",
    "Facts",
    "FoundProblem",
    "FoundRow",
    "GroupRate",
    "LedgerSummary",
    "Lengths",
    "NextStep",
    "RecipeLine",
    "ReportInput",
    "ReportPaths",
    "RunLine",
    "Scalar",
    "SplitLedger",
    "StageTime",
    "StepPoint",
    "TextDetails",
    "ValidationPoint",
    "cartography_picture",
    "read_report",
    "render_data_page",
    "render_html",
    "shortened",
    "to_json",
    "visible",
    "write_report",
]
