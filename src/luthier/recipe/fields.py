"""The fields of a recipe, one by one: what error messages, pages and forms are made from.

A section that is a choice (`method`, `tuning`) has an arm per kind; a field then belongs to the
arms that have it.
"""

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from luthier.recipe.schema import Recipe
from luthier.recipe.section import Section


class Leaf(NamedTuple):
    """One field: its dotted path, the section it stands in, and pydantic's description of it."""

    path: str
    section: type[BaseModel]
    info: FieldInfo

    @property
    def kind(self) -> str:
        """The kind of choice the field belongs to, or nothing."""
        return kind_of(self.section)


def kind_of(section: type[BaseModel]) -> str:
    """The kind of an arm of a choice, such as "dpo"; empty for an ordinary section."""
    field = section.model_fields.get("kind")
    return str(field.default) if field else ""


def arms(annotation: Any) -> tuple[type[BaseModel], ...]:
    """The sections a field may hold: one, several of a choice, or none for a plain value.

    What is described elsewhere, such as a grader, is a value.
    """
    if get_origin(annotation) is Annotated:
        return arms(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    return tuple(arm for part in get_args(annotation) for arm in arms(part))


def leaves(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[Leaf]:
    """Every field in the order of the schema; a path may come once per kind."""
    for name, info in section.model_fields.items():
        inner = arms(info.annotation)
        for arm in inner:
            yield from leaves(arm, f"{prefix}{name}.")
        if not inner:
            yield Leaf(f"{prefix}{name}", section, info)


def field_names(section: type[BaseModel] = Recipe) -> list[str]:
    """Dotted path of every field of a recipe, each once."""
    return list(dict.fromkeys(leaf.path for leaf in leaves(section)))
