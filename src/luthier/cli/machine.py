"""luthier doctor: is this machine able to do the work?"""

import shutil
from pathlib import Path

import typer

from luthier.cli.options import DEFAULT_WORKSPACE, WorkspaceFolder
from luthier.cli.screen import console

MIN_MEMORY = 4 * 2**30
MIN_DISK = 3 * 2**30


def doctor(workspace: WorkspaceFolder = DEFAULT_WORKSPACE) -> None:
    """Look at Python, packages, processor, memory, disk and GPU, and say what is wrong."""
    from luthier.models import default_cache, probe_devices
    from luthier.runs import capture_environment

    out = console()
    facts = capture_environment()
    devices = probe_devices()
    packages = facts.pop("packages")
    assert isinstance(packages, dict)
    for name, value in facts.items():
        out.print(f"{name:14} {_readable(name, value)}")
    out.print(f"{'packages':14} {', '.join(f'{k} {v}' for k, v in packages.items())}")
    out.print(f"{'GPU':14} {', '.join(devices.names) or 'none'}")
    bfloat16 = "fast" if devices.has_fast_bfloat16 else "not faster: float32 is used"
    out.print(f"{'bfloat16':14} {bfloat16}")
    out.print(f"{'compiler':14} {'yes' if devices.can_compile else 'none that torch can use'}")
    out.print(f"{'model cache':14} {default_cache()}")
    free = shutil.disk_usage(_existing(workspace)).free
    out.print(f"{'free disk':14} {free / 2**30:.1f} GiB")
    problems = [f"{name} is not installed" for name, v in packages.items() if not v]
    if int(str(facts["memory_bytes"])) < MIN_MEMORY:
        problems.append("less than 4 GiB of memory; small models only")
    if free < MIN_DISK:
        problems.append("less than 3 GiB of free disk")
    for problem in problems:
        out.print(f"problem: {problem}")
    if problems:
        raise typer.Exit(1)
    out.print("\nEverything is there.")


def _existing(path: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)


def _readable(name: str, value: object) -> str:
    return f"{int(str(value)) / 2**30:.1f} GiB" if name == "memory_bytes" else str(value)
