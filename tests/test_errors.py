"""Errors say where, what was found, what is accepted and what to do; and they cross processes."""

import pickle

import pytest

from luthier import errors
from luthier.errors import DataError, LuthierError

KINDS = [
    kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, LuthierError)
]  # fmt: skip


def test_the_four_parts_come_in_order() -> None:
    error = DataError(
        'is "bot"', where="a.jsonl:17 role", accepted="user or assistant", advice="rename it",
        details=["one", "two"],
    )  # fmt: skip
    assert str(error) == (
        'a.jsonl:17 role: is "bot"; expected user or assistant; rename it\n  one\n  two'
    )
    assert str(DataError("is empty")) == "is empty"


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind: type[LuthierError]) -> None:
    error = kind("found", where="w", accepted="a", advice="d", details=["x"])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)


def test_every_error_is_drawn_in_the_tree_and_is_a_standard_error_too() -> None:
    assert errors.__doc__ is not None
    for kind in KINDS:
        assert kind.__name__ in errors.__doc__
        if kind is not LuthierError:
            assert issubclass(kind, ValueError | RuntimeError | OSError)
