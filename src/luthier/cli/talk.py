"""luthier chat: talk to a tuned model."""

import sys
from typing import Annotated

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, Wanted, WorkspaceFolder
from luthier.cli.screen import console

System = Annotated[
    str | None,
    typer.Option("--system", help="Instructions; by default those of the training rows."),
]
MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer in tokens.")
]


def chat(
    run: Wanted,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    system: System = None,
    max_new_tokens: MaxNewTokens = None,
) -> None:
    """Ask a tuned model. One line is one question; an empty line or Ctrl-D ends."""
    from luthier.data import Message
    from luthier.pipeline import find_run, open_model

    out = console()
    is_person = sys.stdin.isatty()
    model = open_model(find_run(workspace, run))
    text = model.instructions if system is None else system
    instructions = [Message("system", text)] if text else []
    if is_person:
        out.print(f"{model.run.id}. Every line is a new question; an empty line ends.")
    while True:
        if is_person:
            out.print("> ", end="")
        question = sys.stdin.readline().strip()
        if not question:
            break
        out.print(model.answer([*instructions, Message("user", question)], max_new_tokens))
