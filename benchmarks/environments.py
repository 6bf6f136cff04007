"""An environment of its own for every peer, so that none is held back by another's pins."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent / "environments"
PEERS = tuple(sorted(file.stem for file in HERE.glob("*.txt")))
"""Environments there are pins for."""


def python_of(environment: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, made from its pins where it is not there yet.

    "luthier" is this one.
    """
    if environment == "luthier":
        return Path(sys.executable)
    python = folder / environment / "bin" / "python"
    done = folder / environment / "installed"
    if not done.is_file():
        print(f"installing {environment}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder / environment)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / f"{environment}.txt")], check=True)
        done.touch()
    return python
