"""The recipe's fields are a decision: all of them stand in a golden file, within a budget."""

from collections.abc import Callable, Iterator

from luthier.recipe import RULES, field_names, leaves

BUDGET = 90


def described() -> Iterator[str]:
    for leaf in leaves():
        default = "required" if leaf.info.is_required() else repr(leaf.info.default)
        kind = f" [{leaf.kind}]" if leaf.kind else ""
        assert leaf.info.description, f"{leaf.path} has no docstring"
        yield f"{leaf.path}{kind} = {default}  # {' '.join(leaf.info.description.split())}"


def test_fields_and_defaults_are_the_listed_ones(golden: Callable[[str, str], None]) -> None:
    assert len(field_names()) <= BUDGET, "a setting nobody needs is a setting everybody reads"
    golden("recipe.txt", "\n".join(described()) + "\n")


def test_every_auto_has_a_rule() -> None:
    accepting = {
        leaf.path for leaf in leaves()
        if leaf.path != "data.format" and "'auto'" in str(leaf.info.annotation)
    }  # fmt: skip
    assert accepting == set(RULES)
