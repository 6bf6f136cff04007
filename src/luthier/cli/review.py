"""luthier review, votes: people compare answers blindly; what they prefer, and rows made of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, WorkspaceFolder
from luthier.cli.screen import console
from luthier.errors import ConfigError

if TYPE_CHECKING:
    from luthier.evaluation import EvaluationResult, Strength, SystemResult
    from luthier.review import Ballot, Count
KEYS = {"l": "left", "r": "right", "t": "tie", "b": "both bad"}
CORRECT, SKIP, QUIT = "c", "s", "q"
HELP = "[l]eft, [r]ight, [t]ie, [b]oth bad, [c]orrect, [s]kip, [q]uit"

Judged = Annotated[
    str, typer.Argument(help="Folder or name of a trial, or a run, whose answers are compared.")
]


def review(
    judged: Judged,
    rater: Annotated[str, typer.Option("--rater", help="Who votes.")] = "me",
    against: Annotated[
        str, typer.Option("--against", help="System to compare with; else the strongest.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Rows to show at most.")
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Compare answers of two systems without knowing whose is which, row by row."""
    from luthier.review import ballots
    from luthier.runs import Votes, utc_now

    folder, result = _opened(judged, workspace)
    own, other = _pair(result, against)
    kept = Votes(folder)
    pair = (own.name, other.name)
    voted = {v.row for v in kept if v.rater == rater and (v.first, v.second) == pair}
    waiting = list(ballots(result.examples, own, other, rater, voted))[:limit]
    if not waiting:
        console().print("nothing left to compare")
    for number, ballot in enumerate(waiting, 1):
        answer = _ask(ballot, f"{number} of {len(waiting)}")
        if answer is None:
            break
        choice, correction = answer
        if choice:
            kept.add(ballot.vote(choice, rater, utc_now().isoformat(), correction))
    console().print(f"votes: {kept.place}; counted by: luthier votes {judged}")


def _ask(ballot: "Ballot", place: str) -> tuple[str, str] | None:
    """A choice (empty: none yet) and a correction; None to stop."""
    from rich.markup import escape

    from luthier.report import visible

    out = console()
    out.rule(place)
    for message in ballot.example.prompt:
        out.print(f"[bold]{message.role}[/]: {escape(visible(message.content))}")
    for name, text in (("left", ballot.left), ("right", ballot.right)):
        out.print(f"\n[bold]{name}[/]\n{escape(visible(text)) or '(nothing)'}")
    correction = ""
    while True:
        key = typer.prompt(f"\n{HELP}").strip().lower()[:1]
        if key == CORRECT:
            correction = typer.prompt("the right answer").strip()
        elif key == QUIT:
            return None
        elif key == SKIP:
            return "", ""
        elif key in KEYS:
            return KEYS[key], correction


def votes(
    judged: Judged,
    preferences: Annotated[
        Path | None, typer.Option("--preferences", help="JSONL of preferences to be written.")
    ] = None,
    corrections: Annotated[
        Path | None, typer.Option("--corrections", help="JSONL of corrected rows to be written.")
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """What people preferred, how far they agree with each other and with the judge."""
    from luthier.review import corrected_rows, count_votes, preferred_rows
    from luthier.runs import Votes, write_atomically

    folder, result = _opened(judged, workspace)
    given = list(Votes(folder))
    if not given:
        raise ConfigError(
            "holds no vote", where=str(folder), advice=f"vote first: luthier review {judged}"
        )
    ids = [example.id for example in result.examples]
    counts, ranking = count_votes(given, 0.95, result.duels, ids)
    for line in _lines(counts, ranking):
        console().print(line)
    made = (
        (preferences, preferred_rows(given, result.examples, result.systems)),
        (corrections, corrected_rows(given, result.examples)),
    )
    for place, rows in made:
        if place is not None:
            lines = (json.dumps(row, ensure_ascii=False) for row in rows)
            write_atomically(place, "".join(f"{line}\n" for line in lines))
            console().print(
                f"{len(rows)} rows in {place}; they ask what was held out: a model that learns "
                "from them is to be judged on other rows"
            )


def _lines(counts: "list[Count]", ranking: "list[Strength]") -> Iterator[str]:
    from luthier.evaluation import LEAST_SHARED, format_p

    for count in counts:
        found = count.preferred
        n = found.won + found.lost + found.tied
        yield (
            f"{count.first} against {count.second}: preferred in {found.won} of {n} rows, the "
            f"other in {found.lost}, neither in {found.tied}; win rate {_share(found.rate)} "
            f"({found.test}, {format_p(found.p_value)})"
        )
        if count.num_both_bad:
            yield f"  {count.num_both_bad} votes found both bad"
        if count.num_raters > 1:
            alpha = "unknown" if count.alpha is None else f"{count.alpha:.2f}"
            yield f"  {count.num_raters} people; Krippendorff's alpha {alpha}"
        if count.with_judge is not None:
            shared = count.with_judge
            kappa = "unknown" if shared.kappa is None else f"{shared.kappa:.2f}"
            rough = f" (fewer than {LEAST_SHARED}: rough)" if shared.n < LEAST_SHARED else ""
            yield (
                f"  people and the judge agree on {100 * shared.alike:.0f} % of {shared.n} rows"
                f"{rough}, kappa {kappa}"
            )
        if count.corrected is not None and count.corrected.low is not None:
            yield f"  win rate by people's and the judge's votes together {_share(count.corrected)}"
    for strength in ranking:
        yield (
            f"{strength.system}: wins {100 * strength.share:.0f} % against an average system "
            f"({100 * strength.low:.0f} to {100 * strength.high:.0f})"
        )


def _share(estimate: object) -> str:
    from luthier.evaluation import Estimate

    assert isinstance(estimate, Estimate)
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "unknown"
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _opened(judged: str, workspace: Path) -> "tuple[Path, EvaluationResult]":
    """The folder of a trial or run, and its results. Raises ConfigError, DataError."""
    from luthier.pipeline import find_run
    from luthier.report import read_report

    places = (Path(judged), workspace / "trials" / judged)
    folder = next((p for p in places if (p / "report.json").is_file()), None)
    if folder is None:
        folder = find_run(workspace, judged.removeprefix("run:")).folder
    place = folder / "report.json"
    if not place.is_file():
        raise ConfigError("has no report yet", where=str(folder), advice="finish it first")
    result = read_report(json.loads(place.read_text("utf-8"))).evaluation
    if result is None or len(result.systems) < 2:
        raise ConfigError("holds no answers of two systems", where=str(place))
    return folder, result


def _pair(result: "EvaluationResult", against: str) -> "tuple[SystemResult, SystemResult]":
    """The system in question and the one to compare it with. Raises ConfigError."""
    named = {system.name: system for system in result.systems}
    own = next((s for s in result.systems if s.is_candidate), result.systems[0])
    others = [name for name in named if name != own.name]
    wanted = against or (result.verdict.comparison.baseline if result.verdict else others[0])
    if wanted not in others:
        raise ConfigError(f"is {wanted!r}", where="--against", accepted=", ".join(others))
    return own, named[wanted]
