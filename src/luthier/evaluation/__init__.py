"""Predictions become a verdict: scorers, statistics, comparison, decision. No torch."""

from luthier.evaluation.advising import with_decision, with_losses
from luthier.evaluation.agreement import (
    LEAST_SHARED,
    Agreement,
    agreement,
    krippendorff_alpha,
    prediction_powered_mean,
)
from luthier.evaluation.baselines import (
    joined,
    label_baselines,
    label_prediction,
    value_prediction,
)
from luthier.evaluation.calibration import best_temperature, best_thresholds
from luthier.evaluation.classes import class_scorers, number_scorers
from luthier.evaluation.comparing import CLEAR_CHANGE, compare, estimate
from luthier.evaluation.deciding import decide, strongest_baseline
from luthier.evaluation.details import ClassDetails, class_details
from luthier.evaluation.documents import passages_of
from luthier.evaluation.doubling import Doubled, double
from luthier.evaluation.duels import PairJudge, pair_judge
from luthier.evaluation.evaluating import (
    AnyScorer,
    Observe,
    SystemFinished,
    SystemStarted,
    conclude,
    evaluate,
    rescored,
    run_system,
)
from luthier.evaluation.general import (
    GeneralSet,
    Knowledge,
    Question,
    general_set,
    weigh_general,
)
from luthier.evaluation.grading import (
    Grade,
    GradedScorer,
    Item,
    Means,
    OwnError,
    OwnFunction,
    Said,
    Sample,
    build_graders,
    calculated,
    check_multi,
    grade,
    sample_of,
)
from luthier.evaluation.memorising import Completed, Memorised, weigh_memory
from luthier.evaluation.offending import offensive_words
from luthier.evaluation.power import detectable_at
from luthier.evaluation.preferring import preferred
from luthier.evaluation.prompting import (
    ALONE,
    NearestShots,
    Passages,
    Prompt,
    choose_shots,
    question,
    solved_examples,
    with_shots,
)
from luthier.evaluation.ranking import RANKING_SCORERS
from luthier.evaluation.recording import Answers, from_json, to_json
from luthier.evaluation.refusing import REFUSES, SPEAKS_AS_AI
from luthier.evaluation.replaying import (
    KEPT_OF_ANSWERS,
    RecordedAnswer,
    RecordedPredictor,
    recorded,
)
from luthier.evaluation.sampling import averaged, combine
from luthier.evaluation.scorers import (
    SCORERS,
    KnownScorer,
    PredictionScorer,
    RowScorer,
    Scorer,
    TextScorer,
    build_scorers,
)
from luthier.evaluation.searching import Embed, Search, VectorSearch, WordSearch, normalized
from luthier.evaluation.separation import ClassMap, draw_map
from luthier.evaluation.slices import Slices, slices_of
from luthier.evaluation.strengths import PairedVote, Strength, strengths
from luthier.evaluation.suggesting import Suggestion, suggest_for_texts, suggest_metrics
from luthier.evaluation.suspects import Suspect, find_suspects
from luthier.evaluation.swapping import (
    Changed,
    Probe,
    compare_swapped,
    read_swaps,
    swapped,
    swapped_text,
)
from luthier.evaluation.templates import MissingError, fill, look_up
from luthier.evaluation.tool_answers import Call, calls_in
from luthier.evaluation.values import (
    Comparison,
    Decision,
    Duel,
    Estimate,
    EvaluationResult,
    General,
    Kind,
    Metric,
    Outcome,
    Prediction,
    Predictor,
    Preferred,
    SystemResult,
    Verdict,
)
from luthier.evaluation.wholes import WholeScorer
from luthier.evaluation.word_baselines import (
    BM25Predictor,
    TfidfSearchPredictor,
    TfidfSimilarityPredictor,
)
from luthier.evaluation.wording import (
    format_difference,
    format_estimate,
    format_interval,
    format_p,
    format_value,
)

__all__ = [
    "MissingError",
    "fill",
    "look_up",
    "Call",
    "Completed",
    "Memorised",
    "weigh_memory",
    "Doubled",
    "double",
    "ALONE",
    "CLEAR_CHANGE",
    "RANKING_SCORERS",
    "REFUSES",
    "SCORERS",
    "SPEAKS_AS_AI",
    "Agreement",
    "LEAST_SHARED",
    "Outcome",
    "PairedVote",
    "Strength",
    "agreement",
    "krippendorff_alpha",
    "prediction_powered_mean",
    "strengths",
    "Decision",
    "detectable_at",
    "with_decision",
    "Answers",
    "AnyScorer",
    "KnownScorer",
    "BM25Predictor",
    "Changed",
    "ClassDetails",
    "ClassMap",
    "Comparison",
    "Duel",
    "PairJudge",
    "pair_judge",
    "Estimate",
    "Embed",
    "EvaluationResult",
    "General",
    "GeneralSet",
    "Grade",
    "Knowledge",
    "Question",
    "general_set",
    "weigh_general",
    "GradedScorer",
    "Item",
    "Kind",
    "Means",
    "OwnFunction",
    "OwnError",
    "Said",
    "Sample",
    "build_graders",
    "KEPT_OF_ANSWERS",
    "PredictionScorer",
    "RowScorer",
    "Metric",
    "Observe",
    "NearestShots",
    "Passages",
    "Prediction",
    "Predictor",
    "Preferred",
    "preferred",
    "Probe",
    "Prompt",
    "RecordedAnswer",
    "RecordedPredictor",
    "Scorer",
    "Search",
    "Slices",
    "Suggestion",
    "Suspect",
    "SystemFinished",
    "SystemResult",
    "SystemStarted",
    "TextScorer",
    "TfidfSearchPredictor",
    "TfidfSimilarityPredictor",
    "VectorSearch",
    "Verdict",
    "WholeScorer",
    "WordSearch",
    "averaged",
    "best_temperature",
    "best_thresholds",
    "build_scorers",
    "calls_in",
    "choose_shots",
    "class_details",
    "class_scorers",
    "combine",
    "compare",
    "compare_swapped",
    "conclude",
    "decide",
    "draw_map",
    "estimate",
    "evaluate",
    "find_suspects",
    "format_difference",
    "format_estimate",
    "format_interval",
    "format_p",
    "format_value",
    "from_json",
    "joined",
    "label_baselines",
    "label_prediction",
    "normalized",
    "offensive_words",
    "number_scorers",
    "passages_of",
    "question",
    "read_swaps",
    "recorded",
    "rescored",
    "run_system",
    "slices_of",
    "solved_examples",
    "strongest_baseline",
    "suggest_for_texts",
    "suggest_metrics",
    "swapped",
    "swapped_text",
    "to_json",
    "value_prediction",
    "with_losses",
    "with_shots",
    "calculated",
    "check_multi",
    "grade",
    "sample_of",
]
