"""Memory that the process keeps, counted by the pages the system has to hand out."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from luthier.models.devices import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(3):
    torch.ones(2**24)
before = faults()
for _ in range(20):
    torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_blocks_freed_are_taken_again_without_the_system() -> None:
    kept, plain = (
        int(subprocess.run(
            [sys.executable, "-c", COUNT, how], capture_output=True, text=True, check=True
        ).stdout)
        for how in ("kept", "plain")
    )  # fmt: skip
    assert kept * 10 < plain
