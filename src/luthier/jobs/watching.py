"""Whether whoever holds something still lives, by the beats seen with one's own clock."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar


class Held(Protocol):
    """Something that is held: its holder raises `beat`, a new holder raises `hold`."""

    @property
    def id(self) -> str:
        """Its name."""
        ...

    @property
    def hold(self) -> int:
        """Number of its holder."""
        ...

    @property
    def beat(self) -> int:
        """Grows while the holder lives."""
        ...


Row = TypeVar("Row", bound=Held)


@dataclass
class Watch:
    """Looks on what others hold. No two clocks are compared, so that a jump of one harms nobody."""

    lease: float
    """Seconds without a beat after which a holder is thought dead."""
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[tuple[int, int], float]] = field(default_factory=dict)

    def dead(self, held: Iterable[Row]) -> list[Row]:
        """Those of all that are held now whose holder has not beaten for so long."""
        now, found, seen = self.clock(), [], {}
        for row in held:
            state, since = self._seen.get(row.id, ((-1, -1), now))
            if state != (row.hold, row.beat):
                since = now
            elif now - since > self.lease:
                found.append(row)
            seen[row.id] = ((row.hold, row.beat), since)
        self._seen = seen
        return found
