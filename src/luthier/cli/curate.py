"""luthier data check, fix, split, select, mix: versions that become better ones."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luthier.cli.cartography import how_learnt
from luthier.cli.data import Name, Reference
from luthier.cli.options import DEFAULT_WORKSPACE, WorkspaceFolder
from luthier.cli.screen import Counted, console
from luthier.errors import ConfigError

if TYPE_CHECKING:
    from luthier.curation import Checked, Options, Problem, RowSource
    from luthier.data import Split
    from luthier.report import DataReport

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="Files of rows, or one version of a dataset (NAME, NAME@NUMBER or NAME@TAG).",
    ),
]
Settings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="only=CHECK,... or skip=CHECK,...; alike=0.8 (share of their pieces that near "
        "duplicates have in common); region=DE (whose telephone numbers need no prefix); "
        "model=MODEL (measures lengths in its tokens); embedder=MODEL (finds rows of other words "
        "by the vectors of a model of texts; meaning=0.95 is the cosine they have); "
        "unwanted=RUN/LABEL (finds texts that a tuned classifier calls so, toxic ones say).",
    ),
]
CASES = 3
"""Rows shown of each problem."""
KEPT = ("alike=", "region=", "embedder=", "meaning=", "unwanted=")
"""Settings that what mends needs too."""
FOUND = 1
"""Exit code where something must be mended."""


def check(
    sources: Sources,
    validation: Annotated[
        list[Path],
        typer.Option("--validation", help="File of rows that only choose the best step."),
    ] = [],  # noqa: B006
    test: Annotated[
        list[Path], typer.Option("--test", help="File of rows that are held out.")
    ] = [],  # noqa: B006
    outputs: Annotated[
        list[Path],
        typer.Option("--output", help="Write what was found to a page (.html) or to a .json."),
    ] = [],  # noqa: B006
    settings: Settings = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Find what is wrong with a dataset before anything is trained on it.

    Ends with 1 where something must be mended, such as rows that cannot be read or a test that
    training rows give away.
    """
    from luthier.curation import check_rows, data_report

    for place in outputs:
        if place.suffix not in (".html", ".json"):
            raise ConfigError(f"is {place.name}", where="--output", accepted=".html or .json")
    out = console()
    source, title, total = _source(sources, validation, test, workspace)
    options = _options(settings, workspace, out.print)
    with Counted(out, "rows", total) as counted:
        checked = check_rows(source, options, counted.show)
    adding, mending = _mending(source, settings)
    _print(checked, mending, out.print)
    if adding and any(problem.fix for problem in checked.problems):
        out.print(f"to mend them, make the files a version first: {adding}")
    report = data_report(checked, title, datetime.now(UTC), _both(adding, mending))
    for place in outputs:
        _write(report, place)
        out.print(f"written: {place}")
    if checked.has_errors:
        raise typer.Exit(FOUND)


def fix(
    reference: Reference,
    problems: Annotated[
        list[str], typer.Argument(metavar="PROBLEM...", help="Names that data check gave.")
    ],
    settings: Settings = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Mend problems of a version: a new version, whose log says which rule touched which rows."""
    from luthier.curation import fix_version
    from luthier.runs import Datasets

    datasets, out = Datasets(workspace), console()
    version = datasets.find(reference)
    options = _options(settings, workspace, out.print)
    with Counted(out, "rows", version.num_rows) as counted:
        done = fix_version(datasets, version, problems, options, counted.show)
    for name, number in done.touched.items():
        spared = done.spared.get(name, 0)
        said = f"; {spared:,} test rows stay as they are, for models are judged by them"
        out.print(f"{name}: {number:,} rows{said if spared else ''}")
    said = "" if done.is_new else ", as before: nothing was changed"
    out.print(f"{done.version.reference}  {done.version.num_rows:,} rows{said}")


def split(
    reference: Reference,
    test: Annotated[
        float, typer.Option("--test", help="Share of the rows that is held out.")
    ] = 0.1,
    validation: Annotated[
        float, typer.Option("--validation", help="Share that chooses the best step.")
    ] = 0.1,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="hash; label (the same shares of each); group:COLUMN (rows with one value stay "
            "together); time:COLUMN (the last rows are the test).",
        ),
    ] = "hash",
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="alike=0.8 (questions so alike stay in one split; 1 for equal ones); "
            "embedder=MODEL (questions that mean nearly the same stay in one, by the vectors of a "
            "model of texts; meaning=0.95 is the cosine they have).",
        ),
    ] = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Part the rows of a version for training, validation and test: a new version.

    Rows that ask nearly the same are never divided. Rows that have a split keep it: a test stays
    the same when rows are added.
    """
    from luthier.curation import Shares, split_version
    from luthier.runs import Datasets

    datasets, out = Datasets(workspace), console()
    version = datasets.find(reference)
    way, _, column = by.partition(":")
    given = read_settings(settings, {"alike": float, "embedder": str, "meaning": float})
    shares = Shares(test, validation, way, column, **_with_vectors(given))
    with Counted(out, "rows", version.num_rows) as counted:
        done = split_version(datasets, version, shares, counted.show)
    parts = ", ".join(f"{number:,} {name}" for name, number in done.version.splits.items())
    said = "" if done.is_new else ", as before"
    out.print(f"{done.version.reference}  {parts}, in {done.num_groups:,} groups{said}")
    if done.largest > version.num_rows / 2:
        why = f"they share {column}, or ask nearly what others of it ask" if way == "group" else (
            "each asks nearly what another asks; --set alike=0.95 looks closer, 1 parts all "
            "that is not equal"
        )  # fmt: skip
        out.print(f"{done.largest:,} rows are one group, which stays together: {why}")
    for name in done.empty:
        out.print(f"no row fell into {name}: too few groups, or rows that keep the split they have")
    if done.num_left_out:
        out.print(
            f"left out: {done.num_left_out:,} new rows that ask nearly what held-out rows ask"
        )


def select(
    reference: Reference,
    where: Annotated[
        str,
        typer.Option(
            "--where",
            help="Rows of which this is true, such as: label == 'spam' and question | length < 500",
        ),
    ] = "",
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="limit=1000 (chosen by hash; with order= the first); sample=random or diverse (as "
            "many of every kind, by its words or the vectors of embedder=MODEL); order=EXPRESSION "
            "(the smallest first); split=train (others stay as they are); name=NEW; run=RUN (what "
            "it noted of its rows can be asked for: loss, confidence, variability, and learning, "
            "which is easy, ambiguous, hard or unseen).",
        ),
    ] = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Keep some rows of a version: a new version of it, or of another name."""
    from luthier.curation import Selection, select_version
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    given = read_settings(
        settings,
        {"limit": int, "sample": str, "order": str, "split": str, "name": str, "run": str,
         "embedder": str},
    )  # fmt: skip
    name = given.pop("name", "")
    if "run" in given:
        given["run"], given["learnt"] = how_learnt(given["run"], workspace)
    selection = Selection(where=where, **_with_vectors(given))
    version, is_new = select_version(datasets, datasets.find(reference), selection, name)
    said = "" if is_new else " holds exactly these rows already"
    console().print(f"{version.reference}{said}  {version.num_rows:,} rows")


def mix(
    name: Name,
    parts: Annotated[
        list[str],
        typer.Argument(metavar="VERSION[=WEIGHT]...", help="Versions, such as chats=3 jokes@2=1."),
    ],
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="size=10000 (training rows in all); temperature=2 (above 1, small versions "
            "without a weight count for more).",
        ),
    ] = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Mix versions into one, by weights: a version of NAME. Held-out rows are all kept."""
    from luthier.curation import Part, mix_versions
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    given = read_settings(settings, {"size": int, "temperature": float})
    chosen = []
    for part in parts:
        reference, _, weight = part.partition("=")
        number = _read(float, weight, part) if weight else None
        chosen.append(Part(datasets.find(reference), number))
    version, is_new = mix_versions(datasets, name, chosen, **given)
    said = "" if is_new else " holds exactly these rows already"
    counts = ", ".join(f"{n:,} of {ref}" for ref, n in version.details["parts"].items())
    console().print(f"{version.reference}{said}  {version.num_rows:,} rows: {counts}")


def read_settings(settings: list[str], known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Settings such as "limit=10" as values. Raises ConfigError."""
    found = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in known or not value:
            accepted = ", ".join(f"{one}=..." for one in known)
            raise ConfigError(f"is {setting!r}", where="--set", accepted=accepted)
        found[name] = _read(known[name], value, name)
    return found


def _with_vectors(given: dict[str, Any]) -> dict[str, Any]:
    """Settings with what makes vectors of texts, where they name a model."""
    if "embedder" not in given:
        return given
    from luthier.pipeline import open_embed

    return {**given, "embed": open_embed(given["embedder"])}


def _read(kind: Callable[[str], Any], value: str, where: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ConfigError(f"is {value!r}", where=where, accepted="a number") from None


def _source(
    sources: list[str], validation: list[Path], test: list[Path], workspace: Path
) -> "tuple[RowSource, str, int | None]":
    """Rows to be checked, what to call them, and how many there are, if that is known."""
    from luthier.curation import FileSource, VersionSource
    from luthier.data import READERS
    from luthier.runs import Datasets

    paths = [Path(source) for source in sources]
    datasets = Datasets(workspace)
    name = sources[0].partition("@")[0]
    is_file = paths[0].is_file() or paths[0].suffix in READERS
    is_reference = len(sources) == 1 and (name in datasets.names() or not is_file)
    if is_reference and not validation and not test:
        version = datasets.find(sources[0])
        content = datasets.content(version)
        return VersionSource(content, version.reference), version.reference, version.num_rows
    splits: dict[Split | None, list[Path]] = {
        "train" if validation or test else None: paths, "validation": validation, "test": test,
    }  # fmt: skip
    named = [path for some in splits.values() for path in some]
    return FileSource(splits), ", ".join(path.name for path in named), None


def _mending(source: "RowSource", settings: list[str]) -> "tuple[str, Callable[[Problem], str]]":
    """What makes files a version, which alone can be mended, and what mends a problem of it."""
    from luthier.curation import FileSource, VersionSource

    adding, name = "", "NAME"
    if isinstance(source, VersionSource):
        name = source.reference
    elif isinstance(source, FileSource):
        parts = [
            f"{f'--{split} ' if split in ('validation', 'test') else ''}{shlex.quote(str(path))}"
            for split, paths in source.files.items()
            for path in paths
        ]
        adding = f"luthier data add NAME {' '.join(parts)}"
    kept = (f" --set {shlex.quote(s)}" for s in settings if s.startswith(KEPT))
    options = "".join(kept)

    def command(problem: "Problem") -> str:
        return f"luthier data fix {name} {problem.name}{options}" if problem.fix else ""

    return adding, command


def _both(adding: str, mending: "Callable[[Problem], str]") -> "Callable[[Problem], str]":
    """What makes files a version and then mends it, where there is something that does."""

    def command(problem: "Problem") -> str:
        said = mending(problem)
        return f"{adding}\n{said}" if adding and said else said

    return command


def _options(settings: list[str], workspace: Path, say: Callable[[str], None]) -> "Options":
    """What was asked for, with the models it names opened."""
    from luthier.curation import read_options

    options = read_options(settings)
    opened: dict[str, Any] = {}
    if options.model:
        from luthier.pipeline import open_measure

        opened["measure"], opened["limit"] = open_measure(options.model, say)
    if options.embedder:
        from luthier.pipeline import open_embed

        opened["embed"] = open_embed(options.embedder)
    if options.unwanted:
        from luthier.pipeline import open_label

        opened["of_label"] = open_label(options.unwanted, workspace)
    return replace(options, **opened)


def _write(report: "DataReport", place: Path) -> None:
    from luthier.curation import as_json
    from luthier.report import render_data_page
    from luthier.runs import write_atomically

    is_page = place.suffix == ".html"
    write_atomically(place, render_data_page(report) if is_page else as_json(report))


def _print(
    checked: "Checked", mending: "Callable[[Problem], str]", say: Callable[[str], None]
) -> None:
    from luthier.report import shortened, visible

    parts = ", ".join(f"{number:,} {split}" for split, number in checked.splits.items())
    say(f"{checked.num_rows:,} rows{f' ({parts})' if parts else ''}")
    for problem in checked.problems:
        mended = f"\n   mend it: {mending(problem)}" if problem.fix else ""
        say(f"\n{problem.severity}: {problem.title}  [{problem.name}]\n   {problem.why}{mended}")
        for case in problem.cases[:CASES]:
            said = (case.place, shortened(case.text, 90), shortened(case.detail, 90))
            say(f"   - {visible('  |  '.join(filter(None, said)))}")
    taken = sorted(checked.seconds.items(), key=lambda pair: -pair[1])
    named = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in taken[:6] if seconds >= 0.05)
    say(f"\n{sum(checked.seconds.values()):.1f} s{f': {named}' if named else ''}")
    if not checked.problems:
        say("nothing stands out")
