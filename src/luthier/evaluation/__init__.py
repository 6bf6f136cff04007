"""Predictions become a verdict: scorers, statistics, comparison, decision. No torch."""

from luthier.evaluation.comparing import CLEAR_CHANGE, compare, estimate
from luthier.evaluation.deciding import decide, strongest_prompt
from luthier.evaluation.evaluating import (
    Kind,
    Observe,
    SystemFinished,
    SystemStarted,
    conclude,
    evaluate,
    run_system,
)
from luthier.evaluation.recording import from_json, to_json
from luthier.evaluation.scorers import SCORERS, LossScorer, Scorer, TextScorer, build_scorers
from luthier.evaluation.suggesting import Suggestion, suggest_metrics
from luthier.evaluation.values import (
    Comparison,
    Estimate,
    EvaluationResult,
    Metric,
    Prediction,
    Predictor,
    SystemResult,
    Verdict,
)
from luthier.evaluation.wording import (
    format_difference,
    format_estimate,
    format_interval,
    format_p,
    format_value,
)

__all__ = [
    "CLEAR_CHANGE",
    "SCORERS",
    "Comparison",
    "Estimate",
    "EvaluationResult",
    "Kind",
    "LossScorer",
    "Metric",
    "Observe",
    "Prediction",
    "Predictor",
    "Scorer",
    "Suggestion",
    "SystemFinished",
    "SystemResult",
    "SystemStarted",
    "TextScorer",
    "Verdict",
    "build_scorers",
    "compare",
    "conclude",
    "decide",
    "estimate",
    "evaluate",
    "format_difference",
    "format_estimate",
    "format_interval",
    "format_p",
    "format_value",
    "from_json",
    "run_system",
    "strongest_prompt",
    "suggest_metrics",
    "to_json",
]
