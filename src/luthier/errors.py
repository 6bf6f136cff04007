"""Every error a user can meet, as one tree.

LuthierError
+-- ConfigError      (ValueError)    a recipe, a flag or a setting is wrong
+-- DataError        (ValueError)    a data file or a row is wrong
+-- TemplateError    (ValueError)    a chat template cannot render the rows it is given
+-- ModelError       (ValueError)    a model cannot be found, read or used
+-- TrainingError    (RuntimeError)  a run cannot go on
+-- CheckpointError  (RuntimeError)  a checkpoint cannot be written, read or resumed
+-- EvaluationError  (ValueError)    a comparison cannot be made
+-- JobError         (ValueError)    a job cannot do what is asked of it
+-- StorageError     (OSError)       a folder or the database cannot be read or written

A message has four parts, always in this order: where, what was found, what is accepted, what to do
next. `details` holds further lines of the same kind, one per finding, for errors that list
everything wrong at once. The command line prints one of these without a traceback and exits
with 2; anything else that reaches a user is a bug.
"""

from collections.abc import Iterable
from typing import Any


class LuthierError(Exception):
    """Root of the tree; catch this to catch everything Luthier raises at its users."""

    def __init__(
        self,
        found: str,
        *,
        where: str = "",
        accepted: str = "",
        advice: str = "",
        details: Iterable[str] = (),
    ) -> None:
        super().__init__(found)
        self.found = found
        self.where = where
        self.accepted = accepted
        self.advice = advice
        self.details = tuple(details)

    def __str__(self) -> str:
        head = f"{self.where}: {self.found}" if self.where else self.found
        expected = f"expected {self.accepted}" if self.accepted else ""
        first = "; ".join(part for part in (head, expected, self.advice) if part)
        return "\n".join((first, *(f"  {detail}" for detail in self.details)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by positional arguments; ours are keywords, and they cross processes.
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(kind: type[LuthierError], state: dict[str, Any]) -> LuthierError:
    error = kind(state["found"])
    error.__dict__.update(state)
    return error


class ConfigError(LuthierError, ValueError):
    """A recipe, a flag or a setting is wrong."""


class DataError(LuthierError, ValueError):
    """A data file or a row is wrong."""


class TemplateError(LuthierError, ValueError):
    """A chat template cannot render the rows it is given, or renders them inconsistently."""


class ModelError(LuthierError, ValueError):
    """A model cannot be found, read or used."""


class TrainingError(LuthierError, RuntimeError):
    """A run cannot go on."""


class CheckpointError(LuthierError, RuntimeError):
    """A checkpoint cannot be written, read or resumed."""


class EvaluationError(LuthierError, ValueError):
    """A comparison cannot be made."""


class JobError(LuthierError, ValueError):
    """A job cannot do what is asked of it."""


class StorageError(LuthierError, OSError):
    """A folder or the database cannot be read or written."""


def missing_package(package: str, extra: str, *, where: str, accepted: str = "") -> ConfigError:
    """What is raised when an optional package is needed and not installed."""
    return ConfigError(
        f"{package} is not installed",
        where=where,
        accepted=accepted,
        advice=f"pip install 'luthier[{extra}]', or do without",
    )
