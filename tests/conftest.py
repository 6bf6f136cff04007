"""What all tests share: golden files, compared to the letter and renewed by one flag."""

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no bug: examples may take as long as they take.
settings.register_profile("luthier", deadline=None)
settings.load_profile("luthier")

Golden = Callable[[str, str], None]

pytest_plugins = ("postgresql_server",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that renews golden files."""
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="write golden files anew; review the difference before you keep them",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a text with golden/NAME beside the test, or write it there when asked to."""
    folder: Path = request.path.parent / "golden"
    regenerate = bool(request.config.getoption("--regenerate-golden"))

    def compare(name: str, text: str) -> None:
        path = folder / name
        if regenerate:
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        assert path.exists(), f"{path} is missing; write it with --regenerate-golden"
        expected = path.read_text(encoding="utf-8")
        changes = difflib.unified_diff(
            expected.splitlines(), text.splitlines(), "golden", "now", lineterm=""
        )
        assert text == expected, "\n".join((f"{path} differs:", *changes))

    return compare
