"""luthier evaluate, probe: systems on the same rows; a run on rows that name groups otherwise."""

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from luthier.cli.options import DEFAULT_WORKSPACE, Wanted, WorkspaceFolder
from luthier.cli.screen import console, screen
from luthier.errors import ConfigError

if TYPE_CHECKING:
    from luthier.recipe import Trial

SHIFTS = 10
"""Kinds of changes that are shown."""
RECIPES = (".yaml", ".yml")
LADDER_SHOTS = 4


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="SYSTEM...",
            help="Runs, models, http://HOST/PATH#MODEL, files of recorded answers (.jsonl), or one "
            "file of systems (.yaml). The first is judged against the others; a run alone against "
            "its prompt without training.",
        ),
    ],
    data: Annotated[Path | None, typer.Option("--data", help="File of rows to judge on.")] = None,
    train: Annotated[
        Path | None, typer.Option("--train", help="File of rows that examples are taken from.")
    ] = None,
    documents: Annotated[
        Path | None, typer.Option("--documents", help="Folder of texts that are looked up.")
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="evaluation.primary=exact, evaluation.limit=100, overlap=report and the like; "
            "with --train and --documents each model is asked without and with them.",
        ),
    ] = [],  # noqa: B006 - typer's form
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    *,
    harness: Annotated[
        list[str],
        typer.Option(
            metavar="TASK",
            help="A task of lm-evaluation-harness, or the file of one (.yaml), in place of rows.",
        ),
    ] = [],  # noqa: B006 - typer's form
) -> None:
    """Judge models, prompts, endpoints and recorded answers on the same rows."""
    from luthier.pipeline import evaluate_run, find_run, try_systems

    if harness:
        _refuse_rows({"--data": data, "--train": train, "--documents": documents})
        _put_tasks(models, harness, settings, workspace)
        return
    is_run_alone = len(models) == 1 and not (train or documents or settings)
    if is_run_alone and data is not None and _is_run(models[0], workspace):
        with screen() as shown:
            result = evaluate_run(find_run(workspace, _bare(models[0])), data, shown.show)
    else:
        trial = _trial(models, data, train, documents, settings, workspace)
        with screen() as shown:
            tried = try_systems(trial, shown.show)
        result = tried.result
        console().print(f"\nreport: {tried.report}")
    if result.verdict is not None:
        console().print("\n" + textwrap.fill(result.verdict.paragraph, 92))
    if result.decision is not None:
        console().print(result.decision.words, markup=False)


def _trial(
    models: list[str],
    data: Path | None,
    train: Path | None,
    documents: Path | None,
    settings: list[str],
    workspace: Path,
) -> "Trial":
    """What the command line asks for."""
    from luthier.recipe import read_trial, trial_from

    if len(models) == 1 and models[0].endswith(RECIPES):
        given = {"data": data, "train": train, "runtime.workspace": workspace}
        more = [f"{name}={value}" for name, value in given.items() if value is not None]
        return read_trial(Path(models[0]), [*more, *settings])
    if data is None:
        raise ConfigError("is missing", where="--data", accepted="a file of rows to judge on")
    systems = []
    for model in models:
        named = f"run:{_bare(model)}" if _is_run(model, workspace) else model
        systems += _ladder(named, train, documents)
    content = {"data": data, "train": train, "systems": systems,
               "runtime": {"workspace": workspace}}  # fmt: skip
    return trial_from({k: v for k, v in content.items() if v is not None}, settings)


def _ladder(model: str, train: Path | None, documents: Path | None) -> list[dict[str, object]]:
    """A model alone, and with what there is to put into its prompt."""
    from luthier.pipeline import kind_of_model

    found: list[dict[str, object]] = [{"model": model}]
    if kind_of_model(model) == "recorded":
        return found
    if train is not None:
        found.append({"model": model, "shots": LADDER_SHOTS})
        found.append({"model": model, "shots": LADDER_SHOTS, "pick": "nearest"})
    if documents is not None:
        found.append({"model": model, "documents": documents})
    return found


def _refuse_rows(given: dict[str, Path | None]) -> None:
    """Raise ConfigError for files of rows, which tasks have of their own."""
    for option, file in given.items():
        if file is not None:
            advice = "leave it out with --harness"
            raise ConfigError("is for rows of one's own", where=option, advice=advice)


def _put_tasks(models: list[str], tasks: list[str], settings: list[str], workspace: Path) -> None:
    """Put tasks of the harness to local models, and show what came of each."""
    from luthier.evaluation import format_difference, format_estimate, format_interval
    from luthier.pipeline import run_harness
    from luthier.recipe import trial_from

    named = [f"run:{_bare(m)}" if _is_run(m, workspace) else m for m in models]
    # Settings mean the same as for rows; there are none to read.
    given = {"systems": [{"model": model} for model in named], "data": "harness",
             "runtime": {"workspace": workspace}}  # fmt: skip
    trial = trial_from(given, settings)
    with screen() as shown:
        scores, place = run_harness(named, tasks, trial.runtime, trial.evaluation, shown.show)
    out = console()
    table = Table("task", "metric", "model", "rows", "value", f"{named[0]} less it", box=None)
    for score in scores:
        difference = ""
        if score.comparison is not None:
            limits = format_interval(score.metric, score.comparison.low, score.comparison.high)
            difference = (
                f"{format_difference(score.metric, score.comparison.difference)} ({limits})"
            )
        value = format_estimate(score.metric, score.estimate, trial.evaluation.confidence)
        cells = (score.task, score.metric.name, score.system, f"{score.estimate.n:,}", value)
        table.add_row(*map(escape, (*cells, difference)))
    out.print(table)
    out.print(f"written: {place}")


def _bare(model: str) -> str:
    return model.removeprefix("run:")


def _is_run(model: str, workspace: Path) -> bool:
    """Whether a word names a run of the workspace, rather than a model."""
    from luthier.pipeline import find_run, kind_of_model

    if model.startswith("run:"):
        return True
    if kind_of_model(model) != "local" or model.startswith("wheel:") or model.endswith(RECIPES):
        return False
    try:
        find_run(workspace, model)
    except ConfigError:
        return False
    return True


def probe(
    run: Wanted,
    data: Annotated[Path, typer.Option("--data", help="File of rows to ask.")],
    swaps: Annotated[
        list[str], typer.Option("--swap", metavar="TERM=TERM", help="Terms, each for the other.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="JSONL of the rows whose answer changed.")
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Ask a tuned model rows twice, a group named otherwise: which answers change?"""
    from luthier.evaluation import read_swaps
    from luthier.pipeline import find_run, probe_run
    from luthier.runs import write_atomically

    chosen = read_swaps(swaps)
    with screen() as shown:
        found = probe_run(find_run(workspace, run), data, chosen, shown.show)
    out = console()
    out.print(
        f"{found.num_changed:,} of {found.num_rows:,} answers changed: {100 * found.share:.1f} % "
        f"(95 % interval {100 * found.low:.1f} to {100 * found.high:.1f})"
    )
    for (before, after), number in list(found.shifts.items())[:SHIFTS]:
        out.print(f"  {number:,} from {_short(before)} to {_short(after)}")
    if output is not None:
        lines = (json.dumps(asdict(changed), ensure_ascii=False) for changed in found.changed)
        write_atomically(output, "".join(f"{line}\n" for line in lines))
        out.print(f"written: {output}")


def memory(
    run: Wanted,
    most: Annotated[int, typer.Option("--rows", min=5, help="Rows of either kind, at most.")] = 200,
    output: Annotated[
        Path | None, typer.Option("--output", help="JSONL of the learnt rows that were completed.")
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Let a tuned model complete answers: does it know rows it learnt by heart?"""
    from luthier.pipeline import find_run, probe_memory
    from luthier.runs import write_atomically

    with screen() as shown:
        found = probe_memory(find_run(workspace, run), most, shown.show)
    out = console()
    out.print("\n" + textwrap.fill(found.words, 92), markup=False)
    for row in found.rows[:SHIFTS]:
        out.print(f"  {row.place}: ...{_short(row.text)}", markup=False)
    if output is not None:
        lines = (json.dumps(asdict(row), ensure_ascii=False) for row in found.rows)
        write_atomically(output, "".join(f"{line}\n" for line in lines))
        out.print(f"written: {output}")


def _short(text: str) -> str:
    from luthier.report import shortened, visible

    return repr(shortened(visible(text), 60))


def general(
    run: Wanted,
    questions: Annotated[
        Path | None,
        typer.Option(
            "--questions",
            help="JSONL of question, choices and answer, or text, with a subject; without it, "
            "what the run was asked, or the built-in ones.",
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin", min=0.001, max=1, help="Loss that does not matter; 0.05 is 5 points."
        ),
    ] = None,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Ask a tuned model and its start what has nothing to do with its task: is it still known?"""
    from luthier.pipeline import find_run, probe_general

    with screen() as shown:
        found = probe_general(find_run(workspace, run), questions, margin, shown.show)
    out = console()
    out.print("\n" + textwrap.fill(found.words, 92), markup=False)
    for each in found.picked:
        out.print(
            f"  {each.subject:12} {each.n:5,} questions  {100 * each.before:5.1f} % -> "
            f"{100 * each.after:5.1f} % right",
            markup=False,
        )
    if found.divergence is not None:
        out.print(f"  moved from its start by {found.divergence:.3f} nats a token (KL divergence)")
