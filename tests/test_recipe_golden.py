"""The recipe's fields are a decision: all of them stand in a golden file, within a budget."""

from collections.abc import Callable, Iterator

from pydantic import BaseModel

from luthier.recipe import RULES, Recipe, field_names

BUDGET = 90


def leaves(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            default = "required" if field.is_required() else repr(field.default)
            assert field.description, f"{prefix}{name} has no docstring"
            yield f"{prefix}{name} = {default}  # {field.description}"


def test_fields_and_defaults_are_the_listed_ones(golden: Callable[[str, str], None]) -> None:
    lines = list(leaves(Recipe))
    assert len(lines) <= BUDGET, "a setting nobody needs is a setting everybody reads"
    golden("recipe.txt", "\n".join(lines) + "\n")


def test_every_auto_has_a_rule() -> None:
    schema = Recipe.model_json_schema()
    sections = {
        name: schema["$defs"][prop["$ref"].rpartition("/")[2]]
        for name, prop in schema["properties"].items()
        if "$ref" in prop
    }
    accepting = {
        f"{section}.{field}"
        for section, content in sections.items()
        for field, form in content["properties"].items()
        if f"{section}.{field}" != "data.format" and '"auto"' in str(form).replace("'", '"')
    }
    assert accepting == set(RULES)
    assert accepting <= set(field_names())
