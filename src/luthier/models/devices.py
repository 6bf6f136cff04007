"""What this machine computes on, and how much memory that has taken."""

import ctypes
import os
import platform
import resource
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from luthier.errors import ConfigError

FAST_BFLOAT16 = frozenset({"amx_bf16", "bf16", "svebf16"})
"""Names in /proc/cpuinfo of instructions that multiply bfloat16 matrices faster (x86 and Arm)."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, from malloc.h."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Facts about the machine."""

    has_cuda: bool
    has_fast_bfloat16: bool
    """Whether bfloat16 matrices are multiplied faster than those of float32."""
    can_compile: bool
    """Whether there is what torch.compile needs: Triton, or a C++ compiler and Python's headers."""
    names: tuple[str, ...]
    """Names of the GPUs, or nothing."""
    memory: tuple[int, ...] = ()
    """Bytes of each GPU."""


def probe_devices() -> Devices:
    """Look at the machine."""
    has_cuda = torch.cuda.is_available()
    return Devices(
        has_cuda=has_cuda,
        has_fast_bfloat16=torch.cuda.is_bf16_supported() if has_cuda else _cpu_has_fast_bfloat16(),
        can_compile=find_spec("triton") is not None if has_cuda else _has_compiler(),
        names=tuple(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())),
        memory=tuple(
            torch.cuda.get_device_properties(i).total_memory
            for i in range(torch.cuda.device_count())
        ),
    )


def _cpu_has_fast_bfloat16() -> bool:
    # macOS has no /proc/cpuinfo, and torch's bfloat16 on its CPUs is slower than float32.
    if platform.system() != "Linux":
        return False
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").lower().split()
    return is_bfloat16_faster(frozenset(words))


def is_bfloat16_faster(words: frozenset[str]) -> bool:
    """Whether a CPU is made for bfloat16, by the words of /proc/cpuinfo in small letters.

    Intel's avx512_bf16 without amx_bf16 (Sapphire Rapids where a hypervisor hides AMX) is half as
    fast as float32: 170 GFLOP/s against 325 on two cores, from 150 rows on.
    """
    has_pairs = {"avx512_bf16", "authenticamd"} <= words
    return has_pairs or not FAST_BFLOAT16.isdisjoint(words)


def _has_compiler() -> bool:
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    return headers.is_file() and any(shutil.which(name) for name in names)


def choose_device(name: str, threads: int) -> torch.device:
    """The torch device of a resolved recipe; sets the number of CPU threads, and keeps memory.

    Raises ConfigError when a GPU is asked for and none is there.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "no CUDA device can be used",
            where="runtime.device",
            accepted="auto or cpu on this machine",
            advice="run luthier doctor to see why",
        )
    return torch.device(name)


KEPT_BLOCK = 2**30
"""Bytes from which a freed block of memory is given back to the system."""
OLD_KEPT_BLOCK = 2**25
"""The most that older versions of glibc take for it, half of a heap."""


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, for what it takes next; glibc only.

    Every step takes and frees the same blocks. By default glibc hands the larger ones back, and
    gets them again page by page, zeroed by the system: some percent of a step's time.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    set_option = ctypes.CDLL(None).mallopt
    # Were it refused, the threshold would stay where it is: the option below keeps it from growing.
    if not set_option(M_MMAP_THRESHOLD, KEPT_BLOCK):
        set_option(M_MMAP_THRESHOLD, OLD_KEPT_BLOCK)
    set_option(M_TRIM_THRESHOLD, 2**31 - 1)


def precision(name: str) -> torch.dtype:
    """The torch dtype of a resolved recipe."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def peak_memory() -> int:
    """Peak memory in bytes: of the GPU when one is in use, else of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
