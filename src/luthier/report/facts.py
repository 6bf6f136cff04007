"""The run's parts of the page: training, data, recipe, machine, identities.

Plain values of a `ReportInput` go in, lines of words come out, in an order that depends on the
values alone, so that a report read back from its JSON gives the same page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from luthier.recipe import TEXT_METHODS
from luthier.report.curves import best_point
from luthier.report.numbers import MISSING, count, counted, loss, memory, plain_number
from luthier.report.values import (
    DroppedRow,
    Facts,
    LedgerSummary,
    RecipeLine,
    ReportInput,
    Scalar,
    SplitLedger,
)

MAX_PLACES = 12
"""Places listed per reason for dropping; report.json lists all of them."""
_ACRONYMS = {"sha256": "SHA-256", "cpu": "CPU", "gpu": "GPU", "id": "id"}
_SHOWN_FIRST = ("source", "revision", "licence", "sha256", "fingerprint", "files", "rows")


@dataclass(frozen=True, slots=True)
class Fact:
    """A name and what it is; `lines` where there are several."""

    name: str
    lines: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class SplitLine:
    """One split in the table of the ledger."""

    split: str
    num_rows: str
    num_kept: str
    num_dropped: str
    num_tokens: str
    num_supervised: str
    longest: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Rows of one split dropped for one reason; the first places, and how many more."""

    split: str
    reason: str
    num_rows: str
    places: tuple[str, ...]
    num_more: int


@dataclass(frozen=True, slots=True)
class Setting:
    """One recipe value as shown."""

    path: str
    value: str
    origin: str
    is_default: bool


def training_facts(report: ReportInput) -> tuple[Fact, ...]:
    """What training came to, in numbers; empty for a run without steps."""
    curve = report.curve
    if not curve:
        return ()
    best = best_point(report.validation)
    learnt = "Rows learnt from" if reads_texts(report) else "Supervised tokens"
    speeds = [p.tokens_per_second for p in curve if p.tokens_per_second is not None]
    supervised = [p.supervised_tokens for p in curve if p.supervised_tokens is not None]
    norms = [p.grad_norm for p in curve if p.grad_norm is not None]
    facts = [
        Fact("Steps", (count(len(curve)),)),
        Fact("Training loss", (f"{loss(curve[0].loss)} to {loss(curve[-1].loss)}",), "first, last"),
        Fact("Best validation loss", (loss(best.loss) if best else MISSING,),
             f"step {count(best.step)}" if best else ""),
        Fact(learnt, (count(sum(supervised)) if supervised else MISSING,)),
        Fact("Tokens per second", (plain_number(median(speeds), 0) if speeds else MISSING,),
             "median step"),
        Fact("Gradient norm", (plain_number(median(norms), 2) if norms else MISSING,),
             f"median; highest {plain_number(max(norms), 2)}" if norms else ""),
    ]  # fmt: skip
    return tuple(facts)


def reads_texts(report: ReportInput) -> bool:
    """Whether the model was to read texts as a whole, and writes nothing."""
    return any(e.path == "method.kind" and e.value in TEXT_METHODS for e in report.recipe)


def ledger_lines(ledger: LedgerSummary) -> tuple[SplitLine, ...]:
    """One line per split."""
    return tuple(_split_line(split) for split in ledger.splits)


def dropped_reasons(ledger: LedgerSummary) -> tuple[Reason, ...]:
    """Dropped rows by split and reason, the most frequent reason of a split first."""
    return tuple(reason for split in ledger.splits for reason in _reasons(split))


def recipe_sections(recipe: Sequence[RecipeLine]) -> list[tuple[str, tuple[Setting, ...]]]:
    """Recipe values by section, in the recipe's order; values outside of sections come first."""

    def section(line: RecipeLine) -> str:
        return line.path.rpartition(".")[0]

    return [(name, tuple(map(_setting, lines))) for name, lines in groupby(recipe, key=section)]


def fact_lines(facts: Facts) -> tuple[Fact, ...]:
    """Named facts as shown: the identifying ones first, the rest by name."""
    known = [name for name in _SHOWN_FIRST if name in facts]
    rest = sorted(name for name in facts if name not in known)
    return tuple(Fact(_title(name), _fact_lines(facts[name])) for name in (*known, *rest))


def recipe_value(value: Scalar | tuple[Scalar, ...]) -> str:
    """A recipe value as YAML has it."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(recipe_value, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value) or '""'


def interval_name(recipe: Sequence[RecipeLine]) -> str:
    """What to call an interval: by its level of confidence, where the recipe tells it."""
    level = next((line.value for line in recipe if line.path == "evaluation.confidence"), None)
    return f"{100 * level:g}\u00a0% interval" if isinstance(level, float) else "interval"


def peak_memory(report: ReportInput) -> str:
    """The run's peak memory, or the highest that any step saw; empty when neither is known."""
    seen = [point.memory_bytes for point in report.curve if point.memory_bytes is not None]
    peak = report.peak_memory_bytes or max(seen, default=None)
    return memory(peak) if peak else ""


def _split_line(split: SplitLedger) -> SplitLine:
    share = split.num_supervised / split.num_tokens if split.num_tokens else None
    supervised = count(split.num_supervised)
    if share is not None:
        supervised += f" ({plain_number(100 * share, 0)}\u00a0%)"
    return SplitLine(
        split=split.split,
        num_rows=count(split.num_rows),
        num_kept=count(split.num_kept),
        num_dropped=count(len(split.dropped)),
        num_tokens=count(split.num_tokens),
        num_supervised=supervised,
        longest=count(split.longest),
    )


def _reasons(split: SplitLedger) -> list[Reason]:
    by_reason: dict[str, list[DroppedRow]] = {}
    for row in split.dropped:
        by_reason.setdefault(row.reason, []).append(row)
    frequent = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return [
        Reason(
            split.split,
            reason,
            counted(len(rows), "row"),
            tuple(_place(row) for row in rows[:MAX_PLACES]),
            max(0, len(rows) - MAX_PLACES),
        )
        for reason, rows in frequent
    ]


def _place(row: DroppedRow) -> str:
    name = row.place if row.example_id in ("", row.place) else f"{row.place} {row.example_id}"
    return name if row.num_tokens is None else f"{name} ({counted(row.num_tokens, 'token')})"


def _setting(line: RecipeLine) -> Setting:
    name = line.path.rpartition(".")[2]
    return Setting(name, recipe_value(line.value), line.origin, line.origin == "default")


def _fact_lines(value: Scalar | dict[str, Scalar]) -> tuple[str, ...]:
    if isinstance(value, dict):
        return tuple(f"{name}  {_fact(value[name])}" for name in sorted(value))
    return (_fact(value),)


def _fact(value: Scalar) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    return f"{value:.6g}" if isinstance(value, float) else value


def _title(name: str) -> str:
    words = [_ACRONYMS.get(word, word) for word in name.replace("_", " ").split(" ")]
    title = " ".join(words)
    return title[:1].upper() + title[1:]
