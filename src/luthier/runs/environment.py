"""What a run was computed on and with. Names no users and no folders."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch", "transformers", "peft", "tokenizers", "safetensors", "gguf", "numpy", "scipy",
    "pydantic", "sacrebleu", "rouge-score", "jinja2",
)  # fmt: skip

Environment = dict[str, str | int | dict[str, str]]


def capture_environment() -> Environment:
    """Facts about this process's surroundings, for the run's record."""
    return {
        "luthier": _version("luthier"),
        "python": platform.python_version(),
        "platform": platform.platform(aliased=True),
        "processor": _processor(),
        "cores": num_cores(),
        "memory_bytes": memory_bytes(),
        "git_commit": _git_commit(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def num_cores() -> int:
    """Cores this process may use: affinity, and the control group's quota."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            return max(1, min(cores, int(limit) // int(period)))
    return cores


def memory_bytes() -> int:
    """Memory this process may use: the machine's, or the control group's limit."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        return min(total, int(text))
    return total


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str:
    """Commit of the working folder, if it is a git checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - whichever git the user has
            capture_output=True, text=True, check=False, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
