"""luthier check: everything that can be wrong before a run is started."""

from luthier.cli.options import Overrides, RecipeFile
from luthier.cli.screen import console, describe
from luthier.recipe import read_recipe


def check(recipe: RecipeFile, overrides: Overrides = []) -> None:  # noqa: B006 - typer's form
    """Check recipe, data, template, masks and what is to learn, without training anything."""
    from luthier.pipeline import check_start, prepare
    from luthier.tokens import TextSplit

    read = read_recipe(recipe, overrides)
    out = console()
    prepared = prepare(read, out.print)
    for line in describe(prepared):
        out.print(line)
    for finding in prepared.findings:
        out.print(f"warning: {finding}")
    for ledger in (prepared.train.ledger, prepared.validation.ledger):
        for row in ledger.dropped:
            out.print(f"not used: {row.place} {row.reason} ({row.num_tokens} tokens)")
    check_start(prepared.recipe, prepared.source)
    if isinstance(prepared.train, TextSplit):
        for split, texts in prepared.cut.items():
            for cut in texts:
                said = f"has {cut.num_tokens} tokens; its end is left out"
                out.print(f"cut: {cut.place} ({split}) {said}")
        out.print("\nEvery text is read as the model was made to read. Nothing stands in the way.")
        return
    out.print(
        "\nEvery trained turn ends in a token that generation stops on, and is served as it is "
        "trained. Nothing stands in the way."
    )
