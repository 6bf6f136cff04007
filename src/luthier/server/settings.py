"""What the server's owner decides: models to start from, limits, whether keys are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from luthier.jobs.naming import alias_of


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a client may send."""

    file_bytes: int = 512 * 2**20
    upload_bytes: int = 8 * 2**30
    part_bytes: int = 64 * 2**20
    body_bytes: int = 16 * 2**20
    """Of a request that is no file."""
    stall: float = 30.0
    """Seconds in which the next bytes of a body must come."""
    least_rate: int = 1024
    """Bytes a second that a body must come at on average, once it has had `stall` seconds."""
    waiting: int = 256
    """Answers that may wait for a place."""
    requests_per_minute: int | None = None
    """For each key, unless it has a limit of its own."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model that jobs may start from."""

    name: str
    source: str
    """As a recipe says it; only the server's owner does."""

    @property
    def alias(self) -> str:
        """Its name without slashes, as tuned models carry it."""
        return alias_of(self.name)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one server."""

    bases: Mapping[str, Base] = field(default_factory=dict)
    """By name."""
    limits: Limits = field(default_factory=Limits)
    needs_key: bool = True
    embedder: str | None = None
    """Name of the model whose vectors tell how alike texts are."""
    capture_days: float | None = None
    """How long what is asked and answered is kept to learn from; None keeps nothing."""
    origins: tuple[str, ...] = ()
    """Of pages that may ask from a browser."""

    def base(self, name: str) -> Base | None:
        """The model with this name or alias."""
        found = self.bases.get(name)
        return found or next((base for base in self.bases.values() if base.alias == name), None)
