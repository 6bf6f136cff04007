"""Between a run on a cluster and whoever ordered it: lines come, and the wish that it ends goes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from luthier.errors import LuthierError
from luthier.evaluation import EvaluationResult

POLL = 0.5
"""Seconds between two looks, from either side."""

Say = Callable[[str], None]
"""Tells whoever ordered a run a line."""


class Board:
    """What both sides look at; an actor of the cluster, as Ray calls it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._is_to_end = False
        self._result: EvaluationResult | LuthierError | None = None

    def tell(self, line: str) -> None:
        """Keep a line until it is taken."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """All lines that nobody has taken yet."""
        taken, self._lines = self._lines, []
        return taken

    def ask_to_end(self) -> None:
        """The run is to save and end."""
        self._is_to_end = True

    def is_to_end(self) -> bool:
        """Whether somebody has asked for it."""
        return self._is_to_end

    def conclude(self, result: EvaluationResult | LuthierError | None) -> None:
        """Keep how the run was judged, or what was wrong with it."""
        self._result = result

    def result(self) -> EvaluationResult | LuthierError | None:
        """How the run was judged, or what was wrong with it."""
        return self._result


def asks(ray: Any, board: Any) -> Callable[[], bool]:
    """Whether the run is to end, looked up as often as is of use."""
    last, found = -POLL, False

    def is_to_end() -> bool:
        nonlocal last, found
        if not found and time.monotonic() - last >= POLL:
            last, found = time.monotonic(), ray.get(board.is_to_end.remote())
        return found

    return is_to_end


@contextmanager
def listening(
    ray: Any, board: Any, hear: Say, is_interrupted: Callable[[], bool]
) -> Iterator[None]:
    """Within, lines are heard as they come, and the wish that the run ends is passed on."""
    is_over = threading.Event()

    def look() -> None:
        for line in ray.get(board.take.remote()):
            hear(line)
        if is_interrupted():
            ray.get(board.ask_to_end.remote())

    def listen() -> None:
        while not is_over.wait(POLL):
            look()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        is_over.set()
        listener.join()
        look()
