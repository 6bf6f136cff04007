"""Results become a page: pictures, tables, a JSON. No torch, no network."""

from luthier.report.page import render_html
from luthier.report.record import read_report, to_json
from luthier.report.values import (
    DroppedRow,
    Facts,
    LedgerSummary,
    NextStep,
    RecipeLine,
    ReportInput,
    Scalar,
    SplitLedger,
    StageTime,
    StepPoint,
    TextDetails,
    ValidationPoint,
)
from luthier.report.writing import ReportPaths, write_report

__all__ = [
    "DroppedRow",
    "Facts",
    "LedgerSummary",
    "NextStep",
    "RecipeLine",
    "ReportInput",
    "ReportPaths",
    "Scalar",
    "SplitLedger",
    "StageTime",
    "StepPoint",
    "TextDetails",
    "ValidationPoint",
    "read_report",
    "render_html",
    "to_json",
    "write_report",
]
