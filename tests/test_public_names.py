"""What a room offers is a decision: its names stand in a golden file."""

import importlib
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "luthier"


def test_public_names_are_the_listed_ones(golden: Callable[[str, str], None]) -> None:
    rooms = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
    lines = []
    for name in ("luthier", *(f"luthier.{room}" for room in rooms)):
        module = importlib.import_module(name)
        lines.append(name)
        for public in sorted(module.__all__):
            getattr(module, public)
            lines.append(f"    {public}")
    golden("public_names.txt", "\n".join(lines) + "\n")
