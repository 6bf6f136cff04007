"""What all parts of a recipe are made of: closed sections, and values that may be "auto"."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator

Auto = Literal["auto"]
T = TypeVar("T")


def settled(value: T | Auto) -> T:
    """The value of a field whose "auto" has been decided; for use on resolved recipes only."""
    assert value != "auto", "a resolved recipe holds no auto"
    return value


def _is_positive(value: Any) -> Any:
    if value != "auto" and value <= 0:
        raise ValueError("must be greater than 0, or auto")
    return value


Count = Annotated[int | Auto, AfterValidator(_is_positive)]
Rate = Annotated[float | Auto, AfterValidator(_is_positive)]


class Section(BaseModel):
    """A closed, immutable part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_boolean(cls, value: Any) -> Any:
        # No field is a boolean, but pydantic would take true for 1.
        if isinstance(value, bool):
            raise ValueError("no setting is true or false; YAML reads yes, no, on, off as such")
        return value
