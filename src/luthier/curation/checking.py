"""Everything that is wrong with a dataset, found in one pass over its rows."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from luthier.curation.answers import (
    CopiedCheck,
    CutOffCheck,
    JsonCheck,
    MarkupCheck,
    RefusalCheck,
    ToolCallCheck,
)
from luthier.curation.balance import (
    LabelCheck,
    LanguageCheck,
    LengthCheck,
    Measure,
    OpeningCheck,
    Rate,
    SliceCheck,
)
from luthier.curation.characters import MojibakeCheck, OffensiveCheck, UnusualCheck
from luthier.curation.doubt import DoubtCheck
from luthier.curation.formats import check_format
from luthier.curation.looking import FileSource, RowSource, Seen, Spool, seen
from luthier.curation.meaning import MEANING, Vectors
from luthier.curation.near import THRESHOLD
from luthier.curation.overlap import OverlapCheck
from luthier.curation.privacy import mask
from luthier.curation.private import PrivateCheck
from luthier.curation.problems import MAX_CASES, Case, Check, Kind, Problem, Severity, problem_of
from luthier.curation.unwanted import OfLabel, UnwantedCheck
from luthier.data import Finding
from luthier.errors import ConfigError, DataError
from luthier.evaluation import Embed

CHECKS = (
    "overlap", "private", "doubtful-labels", "labels", "refusals", "copied-answers",
    "cut-off-answers", "broken-json-answers", "broken-markup", "broken-tool-calls",
    "unusual-characters", "mojibake", "offensive-words", "lengths", "languages",
    "boilerplate", "slices", "unwanted-content",
)  # fmt: skip
"""Names of all checks but that of the format, which is always made; the last needs a classifier."""
UNREADABLE = "a run would refuse them: nothing is dropped in silence"
BINS = 24
ORDER = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Options:
    """How rows are checked."""

    only: Sequence[str] = ()
    """Checks to be made; all, where there are none."""
    skip: Sequence[str] = ()
    alike: float = THRESHOLD
    """Share of their pieces that two texts have in common to be nearly the same."""
    region: str | None = None
    """Country whose telephone numbers need no prefix."""
    model: str = ""
    """Whose tokens lengths are measured in; whoever knows models turns it into `measure`."""
    measure: Measure | None = None
    """Lengths of texts in tokens."""
    limit: int | None = None
    """Tokens that the model takes."""
    embedder: str = ""
    """A model of texts, by whose vectors rows of other words are compared; see `embed`."""
    embed: Embed | None = None
    meaning: float = MEANING
    """Cosine from which two texts mean nearly the same."""
    unwanted: str = ""
    """A tuned classifier and one of its labels, as RUN/LABEL; see `of_label`."""
    of_label: OfLabel | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.only if name not in ("format", *CHECKS)]
        unknown += [name for name in self.skip if name not in CHECKS]
        if unknown:
            accepted = ", ".join(("format", *CHECKS))
            raise ConfigError(f"is {unknown[0]!r}", where="check", accepted=accepted)
        if "unwanted-content" in self.only and not self.unwanted:
            advice = "--set unwanted=RUN/LABEL, a classifier's run and what it calls such texts"
            raise ConfigError("asks no classifier", where="unwanted-content", advice=advice)
        if self.region is not None and self.region not in regions():
            raise ConfigError(
                f"is {self.region!r}", where="region",
                accepted="a country's two letters as ISO 3166 has them, such as GB or DE",
            )  # fmt: skip
        for name, value in (("alike", self.alike), ("meaning", self.meaning)):
            if not 0.3 <= value < 1:
                raise ConfigError(f"is {value}", where=name, accepted="0.3 to 0.99")


@cache
def regions() -> frozenset[str]:
    """Countries whose telephone numbers are known."""
    from phonenumbers import SUPPORTED_REGIONS

    return frozenset(SUPPORTED_REGIONS)


def read_options(settings: Sequence[str]) -> Options:
    """Options from texts such as "alike=0.9". Raises ConfigError."""
    found: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        read = READERS.get(name)
        if read is None or not value:
            accepted = ", ".join(f"{known}=..." for known in READERS)
            raise ConfigError(f"is {setting!r}", where="--set", accepted=accepted)
        try:
            found[name] = read(value)
        except ValueError:
            raise ConfigError(f"is {value!r}", where=name, accepted="a number") from None
    return Options(**found)


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(","))


READERS: dict[str, Callable[[str], Any]] = {
    "only": _names, "skip": _names, "alike": float, "region": str.upper, "model": str,
    "embedder": str, "meaning": float, "unwanted": str,
}  # fmt: skip
"""Option -> how it is read."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Lengths of rows."""

    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    longest: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found out."""

    problems: tuple[Problem, ...]
    """Errors first, then by rows."""
    num_rows: int
    """That could be read."""
    splits: Mapping[str, int]
    labels: Mapping[str, int]
    languages: Mapping[str, int]
    slices: Mapping[str, Mapping[str, int]]
    rates: tuple[Rate, ...]
    lengths: Histogram | None
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What each check took, and reading."""
    suggested: Mapping[int, str] = field(default_factory=dict)
    """Position of each row with a doubtful label -> the label that others make likeliest."""
    usual: Mapping[str, str] = field(default_factory=dict)
    """Label that is spelled otherwise than another -> the more frequent spelling."""

    @property
    def has_errors(self) -> bool:
        """Whether a run would refuse these rows, or could not be believed."""
        return any(problem.severity == "error" for problem in self.problems)


def check_rows(
    source: RowSource,
    options: Options = Options(),
    observe: Callable[[int], None] = lambda number: None,
) -> Checked:
    """Look at all rows. `observe` is told how many were seen.

    Raises DataError where a file cannot be rows at all.
    """
    if options.only == ("format",) and isinstance(source, FileSource):
        return _format_alone(source, observe)
    with ExitStack() as held:
        checks = _checks(options, held)
        unreadable = _Unreadable()
        clock, counts = _Clock(), Counter[str]()
        for block in clock.timed("reading", seen(source, unreadable.report)):
            counts.update(row.split or "" for row in block)
            clock.shown(checks.values(), block)
            observe(counts.total())
        problems = [*unreadable.problems()]
        if not counts and not problems:
            raise DataError("holds no row", where=source.named, accepted="one row or more")
        for check in checks.values():
            with clock.running(check.name):
                problems += check.problems()
    return _checked(problems, counts, checks, clock.seconds, options)


def _format_alone(source: FileSource, observe: Callable[[int], None]) -> Checked:
    unreadable, clock, counts = _Unreadable(), _Clock(), Counter[str]()
    with clock.running("format"):
        for split, paths in source.files.items():
            for path in paths:
                counts[split or ""] += check_format(path, unreadable.report, observe)
    return _checked(unreadable.problems(), counts, {}, clock.seconds, Options())


def _checks(options: Options, held: ExitStack) -> dict[str, Check]:
    texts, shown, places = (held.enter_context(Spool()) for _ in range(3))
    vectors = held.enter_context(Vectors(options.embed)) if options.embed else None
    made: tuple[Check, ...] = (
        OverlapCheck(texts, shown, places, options.alike, vectors, options.meaning),
        PrivateCheck(options.region), DoubtCheck(), LabelCheck(), RefusalCheck(), CopiedCheck(),
        CutOffCheck(), JsonCheck(), MarkupCheck(), ToolCallCheck(), UnusualCheck(),
        MojibakeCheck(), OffensiveCheck(), LengthCheck(options.measure, options.limit),
        LanguageCheck(), OpeningCheck(), SliceCheck(),
        *([UnwantedCheck(options.of_label)] if options.of_label else []),
    )  # fmt: skip
    wanted = set(options.only or CHECKS) - set(options.skip)
    return {check.name: check for check in made if check.name in wanted}


def _checked(
    problems: Iterable[Problem],
    counts: Counter[str],
    checks: Mapping[str, Check],
    seconds: Mapping[str, float],
    options: Options,
) -> Checked:
    labels, languages = checks.get("labels"), checks.get("languages")
    slices, lengths = checks.get("slices"), checks.get("lengths")
    doubts = checks.get("doubtful-labels")
    ordered = sorted(problems, key=lambda p: (ORDER.index(p.severity), -p.num_rows))
    return Checked(
        problems=tuple(_masked(problem, options.region) for problem in ordered),
        num_rows=counts.total(),
        splits={split: n for split, n in counts.items() if split},
        labels=_masked_names(dict(labels.counts.most_common()), options.region)
        if isinstance(labels, LabelCheck)
        else {},
        languages=dict(languages.counts.most_common())
        if isinstance(languages, LanguageCheck)
        else {},
        slices={c: _masked_names(n, options.region) for c, n in slices.tables().items()}
        if isinstance(slices, SliceCheck)
        else {},
        rates=tuple(
            replace(r, group=mask(r.group, options.region), label=mask(r.label, options.region))
            for r in slices.rates()
        )
        if isinstance(slices, SliceCheck)
        else (),
        lengths=_histogram(lengths, options.limit) if isinstance(lengths, LengthCheck) else None,
        seconds=dict(seconds),
        suggested=doubts.suggested if isinstance(doubts, DoubtCheck) else {},
        usual=labels.usual if isinstance(labels, LabelCheck) else {},
    )


def _masked(problem: Problem, region: str | None) -> Problem:
    """A report is passed on: nothing private is shown in it."""
    cases = (
        Case(c.position, mask(c.place, region), mask(c.text, region), mask(c.detail, region))
        for c in problem.cases
    )
    return replace(problem, title=mask(problem.title, region), cases=tuple(cases))


def _masked_names(counts: Mapping[str, int], region: str | None) -> dict[str, int]:
    """The same counts, by names that hold nothing private."""
    found = Counter[str]()
    for name, number in counts.items():
        found[mask(name, region)] += number
    return dict(found)


def _histogram(check: LengthCheck, limit: int | None) -> Histogram | None:
    lengths = check.lengths
    if not len(lengths):
        return None
    low, high = max(1, int(lengths.min())), max(2, int(lengths.max()))
    edges = np.unique(np.round(np.geomspace(low, high + 1, BINS + 1)))
    counts, _ = np.histogram(np.maximum(lengths, 1), edges)
    return Histogram(
        check.unit, tuple(edges.tolist()), tuple(counts.tolist()), float(np.median(lengths)),
        int(lengths.max()), limit,
    )  # fmt: skip


class _Unreadable:
    """Lines that are no rows, and rows that mean nothing, by what is wrong with them."""

    def __init__(self) -> None:
        self._cases: dict[tuple[str, Severity], list[Case]] = defaultdict(list)
        self._counts = Counter[tuple[str, Severity]]()

    def report(self, finding: Finding) -> None:
        key = (finding.name, finding.severity)
        self._counts[key] += 1
        if len(self._cases[key]) < MAX_CASES:
            said = str(finding).removeprefix(str(finding.place)).strip()
            self._cases[key].append(Case(-1, str(finding.place), "", said))

    def problems(self) -> Iterator[Problem]:
        for (name, severity), number in self._counts.items():
            kind = Kind(name, severity, f"{{n}}: {name.replace('-', ' ')}", UNREADABLE)
            found = problem_of(kind, range(number), self._cases[name, severity])
            # Nobody knows which rows they would have been.
            yield replace(found, positions=np.full(number, -1, np.int64))


class _Clock:
    """Adds up what each part takes."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - begun

    def shown(self, checks: Iterable[Check], block: Sequence[Seen]) -> None:
        for check in checks:
            with self.running(check.name):
                check.see(block)

    def timed(self, name: str, blocks: Iterator[list[Seen]]) -> Iterator[list[Seen]]:
        while True:
            with self.running(name):
                block = next(blocks, None)
            if block is None:
                return
            yield block
