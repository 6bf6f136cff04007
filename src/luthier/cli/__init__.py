"""The pipeline in a shell: one file per noun, no logic of its own.

Imports of anything heavy stay inside the commands, so that --help answers at once.
"""

import os
import sys
from typing import Annotated

import typer

from luthier.cli import (
    browse,
    captures,
    cartography,
    check,
    compare,
    curate,
    curve,
    data,
    databases,
    evaluate,
    machine,
    predict,
    preview,
    recipe,
    review,
    runs,
    search,
    serving,
    talk,
    train,
    use,
    webhooks,
)
from luthier.errors import LuthierError

app = typer.Typer(
    name="luthier",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_asked: bool) -> None:
    from importlib.metadata import version

    if is_asked:
        typer.echo(f"luthier {version('luthier')}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Fine-tune a language model, and know whether it helped."""


app.command("train")(train.train)
app.command("check")(check.check)
app.command("preview")(preview.preview)
app.command("evaluate")(evaluate.evaluate)
app.command("probe")(evaluate.probe)
app.command("memory")(evaluate.memory)
app.command("general")(evaluate.general)
app.command("search")(search.search)
app.command("curve")(curve.curve)
app.command("compare")(compare.compare)
app.command("leaderboard")(compare.leaderboard)
app.command("review")(review.review)
app.command("votes")(review.votes)
app.command("report")(runs.report)
app.command("chat")(talk.chat)
app.command("predict")(predict.predict)
app.command("suspects")(predict.suspects)
data.app.command("check")(curate.check)
data.app.command("fix")(curate.fix)
data.app.command("split")(curate.split)
data.app.command("select")(curate.select)
data.app.command("mix")(curate.mix)
data.app.command("map")(cartography.map_rows)
data.app.command("import")(use.import_logs)
data.app.command("accept")(use.accept)
data.app.command("grow")(use.grow)
data.app.command("browse")(browse.browse)
app.add_typer(data.app, name="data")
app.add_typer(runs.app, name="runs")
app.add_typer(recipe.app, name="recipe")
app.command("serve")(serving.serve)
app.command("worker")(serving.worker)
app.add_typer(serving.keys, name="keys")
app.add_typer(databases.app, name="db")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(captures.app, name="captures")
app.command("doctor")(machine.doctor)

__all__ = ["app", "main"]

USER_ERROR = 2
INTERRUPTED = 130
SPINS = "10000"
"""Rounds that torch's threads (GNU OpenMP) wait for work before they give their core away. Its own
default is so many that beside one busy process a step of 1,000 tokens took 1.4 times as long; alone
nothing is lost."""


def main() -> None:
    """Entry point: errors a user can meet are one message without a traceback, exit code 2."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is loaded
    try:
        app()
    except LuthierError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
