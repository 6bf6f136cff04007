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
    from luthier.tokens import TextSplit, preview_page, shown_sequences, stretches

    read = read_recipe(recipe, overrides)
    out = console()
    prepared = prepare(read, out.print)
    if isinstance(prepared.train, TextSplit):
        for found in prepared.train.encoded[:rows]:
            out.print(f"\n{found.example_id}: {found.num_tokens} tokens")
            for part in found.texts:
                out.print(Text(prepared.tokenizer.decode(part.input_ids, keep_special=True)))
        return
    chosen = [s for example in prepared.train.encoded[:rows] for s in shown_sequences(example)]
    if html is not None:
        write_atomically(html, preview_page(prepared.tokenizer, chosen))
        out.print(f"Page {html}")
        return
    for encoded in chosen:
        out.print(
            f"\n{encoded.example_id}: {len(encoded.input_ids)} tokens, "
            f"{encoded.num_supervised} learnt"
        )
        text = Text()
        for stretch in stretches(prepared.tokenizer, encoded):
            # Brackets as well as colour: a mask must be readable in a log.
            shown = f"[[{stretch.text}]]" if stretch.is_learnt else stretch.text
            text.append(shown, style="bold green" if stretch.is_learnt else "dim")
        out.print(text)
