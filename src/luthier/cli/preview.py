"""luthier preview: rows as the model sees them, with what it learns in colour."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from luthier.cli.options import Overrides, RecipeFile
from luthier.cli.screen import console
from luthier.recipe import read_recipe

RowCount = Annotated[int, typer.Option("--rows", min=1, help="How many rows to show.")]
PagePath = Annotated[Path | None, typer.Option("--html", help="Write a page instead.")]


def preview(
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006 - typer's form
    rows: RowCount = 3,
    html: PagePath = None,
) -> None:
    """Show training rows as rendered, with the learnt text marked."""
    from luthier.pipeline import prepare
    from luthier.runs import write_atomically
    from luthier.tokens import TextSplit, preview_page, shown_example, shown_texts

    read = read_recipe(recipe, overrides)
    out = console()
    prepared = prepare(read, out.print)
    tokenizer, train = prepared.tokenizer, prepared.train
    if isinstance(train, TextSplit):
        some = zip(train.examples[:rows], train.encoded[:rows], strict=True)
        chosen = [shown_texts(tokenizer, example, encoded) for example, encoded in some]
    else:
        chosen = [row for one in train.encoded[:rows] for row in shown_example(tokenizer, one)]
    if html is not None:
        write_atomically(html, preview_page(chosen))
        out.print(f"Page {html}")
        return
    for row in chosen:
        out.print(f"\n{row.heading}")
        text = Text()
        for stretch in row.stretches:
            # Brackets as well as colour: a mask must be readable in a log.
            shown = f"[[{stretch.text}]]" if stretch.is_learnt else stretch.text
            text.append(shown, style="bold green" if stretch.is_learnt else "dim")
        out.print(text)
