"""Memory that the process keeps, counted by the pages the system has to hand out."""

import ctypes
import platform
import subprocess
import sys

import pytest

from luthier.models import devices

COUNT = """
import resource, sys, torch
from luthier.models.devices import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    keep_freed_memory()
for _ in range(10):  # what else is allocated may take a place in a freed block, a few times
    torch.ones(2**24)
before = faults()
for _ in range(40):
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
    assert kept * 4 < plain


class Glibc:
    """What an older or newer version takes as threshold."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.set: dict[int, int] = {}

    def mallopt(self, option: int, value: int) -> int:
        if option == devices.M_MMAP_THRESHOLD and value > self.most:
            return 0
        self.set[option] = value
        return 1


@pytest.mark.parametrize(("most", "kept"), [(2**25, 2**25), (2**62, devices.KEPT_BLOCK)])
def test_an_older_version_keeps_what_it_can(
    most: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Glibc(most)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", ""))
    devices.keep_freed_memory()
    assert library.set[devices.M_MMAP_THRESHOLD] == kept
    assert devices.M_TRIM_THRESHOLD in library.set


@pytest.mark.parametrize(
    ("words", "is_faster"),
    [
        ("vendor_id : authenticamd flags : avx512f avx512_bf16", True),
        ("vendor_id : genuineintel flags : avx512f avx512_bf16", False),
        ("vendor_id : genuineintel flags : avx512_bf16 amx_bf16 amx_tile", True),
        ("vendor_id : authenticamd flags : avx2", False),
        ("features : fp asimd i8mm bf16", True),
    ],
)
def test_bfloat16_is_used_where_it_is_faster(words: str, is_faster: bool) -> None:
    assert devices.is_bfloat16_faster(frozenset(words.split())) is is_faster
