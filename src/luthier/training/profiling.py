"""Where the time of a training step goes, and how close it comes to what the machine can do.

A few steps run under torch's profiler. Each operation's own time is given to a part by what it runs
in (attention, head, optimizer, data) or by what it is (a matrix product elsewhere is a linear
layer's); what is left is the rest: norms, activations, additions, Python. The floating-point
operations of the matrix products are counted on one step, and compared with the best rate at which
this machine multiplies large matrices in the same precision, measured here and now.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

NUM_STEPS = 5
"""Steps that are timed; one more before them is counted."""

OWNERS = (
    ("data", ("luthier: data",)),
    ("optimizer", ("Optimizer.step", "luthier: optimizer")),
    ("head", ("_HeadLoss", "_TokenLosses")),
    ("attention", ("_FlatAttention", "scaled_dot_product", "flash_attn", "flex_attention")),
)
"""Part -> names of what its operations run in."""
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::addmm_", "mkldnn")
PARTS = ("linears", "attention", "head", "optimizer", "data", "rest")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a few steps spent their time on."""

    num_steps: int
    seconds: float
    """Of the timed steps, by the clock."""
    parts: dict[str, float]
    """Part -> its share of the time."""
    num_tokens: int
    """Tokens of the examples of the timed steps."""
    computed_share: float
    """Tokens computed over tokens of the examples: below 1 where beginnings are shared."""
    padding_share: float
    """Tokens of no example over tokens computed."""
    masked_share: float
    """Tokens that carry no loss over tokens of the examples."""
    flops: float
    """Floating-point operations of this process's matrix products, per second of the whole step."""
    limit: float
    """The most it could do, on large matrices of the same precision."""

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the examples per second."""
        return self.num_tokens / self.seconds

    @property
    def flops_at_work(self) -> float:
        """The same, per second in the parts that multiply: linears, attention and head.

        The softmax of attention and the loss stand in that time, but are not counted as work.
        """
        return self.flops / sum(self.parts[part] for part in ("linears", "attention", "head"))


class Profiler:
    """Counts one step, times the next few, and hands over a Profile."""

    def __init__(self, report: Callable[[Profile], None]) -> None:
        self._report = report
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells of itself on standard error
        self._steps: list[dict[str, float]] = []
        self._flops_per_token = 0.0
        self._profile: profile | None = None

    @property
    def is_done(self) -> bool:
        """Whether all has been measured."""
        return len(self._steps) > NUM_STEPS

    def run(
        self, step: Callable[[], dict[str, float]], device: torch.device, dtype: torch.dtype
    ) -> None:
        """Run a step, which says what it computed, and measure it."""
        if self.is_done:
            step()
            return
        if not self._steps:
            self._flops_per_token = count_flops(lambda: self._steps.append(step()))
            self._flops_per_token /= self._steps[0]["num_tokens"]
            return
        if self._profile is None:
            activities = [ProfilerActivity.CPU]
            if device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            self._profile = profile(activities=activities)
            self._profile.start()
        self._steps.append(step())
        if self.is_done:
            self._profile.stop()
            self._report(self._summary(device, dtype))
            self._profile = None

    def _summary(self, device: torch.device, dtype: torch.dtype) -> Profile:
        timed = self._steps[1:]
        total = {name: sum(step[name] for step in timed) for name in timed[0]}
        assert self._profile is not None, "steps have been timed"
        on_gpu = device.type == "cuda"
        spent = dict.fromkeys(PARTS, 0.0)
        for part, own in _own_times(self._profile, on_gpu=on_gpu):
            spent[part] += own
        seconds = total["seconds"]
        # What the profiler did not see belongs to no operation.
        spent["rest"] += max(0.0, seconds - sum(spent.values()))
        whole = sum(spent.values())
        return Profile(
            len(timed),
            seconds,
            {part: spent[part] / whole for part in PARTS},
            int(total["num_tokens"]),
            total["num_computed"] / total["num_tokens"],
            total["num_filler"] / total["num_computed"],
            1 - total["num_supervised"] / total["num_tokens"],
            self._flops_per_token * total["num_tokens"] / seconds,
            matrix_limit(device, dtype),
        )


def count_flops(compute: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products in what is computed."""
    # torch's own formulas leave out products that are added in place.
    with FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.addmm_: _flops_added}
    ) as counter:
        compute()
    return int(counter.get_total_flops())


def _flops_added(total: list[int], a: list[int], b: list[int], **options: Any) -> int:
    """Of total += a b, given their shapes."""
    return 2 * a[0] * a[1] * b[1]


def _own_times(profiled: profile, *, on_gpu: bool) -> Iterator[tuple[str, float]]:
    """Part and own seconds of every operation; of kernels on a GPU, by what started them.

    Read from the recorded events themselves: torch's tree of them takes longer than the steps.
    """
    assert profiled.profiler is not None, "it has run"
    assert profiled.profiler.kineto_results is not None, "it has stopped"
    events = profiled.profiler.kineto_results.events()
    on_host = [e for e in events if e.device_type() == DeviceType.CPU]
    on_host.sort(key=lambda e: (e.start_thread_id(), e.start_ns(), -e.duration_ns()))
    part_of: dict[int, str] = {}
    stack: list[tuple[int, int, str | None]] = []  # thread, end, the part of what runs inside
    for event, inner in zip(on_host, _inner_times(on_host), strict=True):
        thread, start = event.start_thread_id(), event.start_ns()
        while stack and (stack[-1][0] != thread or stack[-1][1] <= start):
            stack.pop()
        owner = _owner(event.name()) or (stack[-1][2] if stack else None)
        stack.append((thread, start + event.duration_ns(), owner))
        part = owner or ("linears" if event.name().startswith(PRODUCTS) else "rest")
        part_of[event.correlation_id()] = part
        if not on_gpu:
            yield part, (event.duration_ns() - inner) / 1e9
    for event in events if on_gpu else ():
        if event.device_type() == DeviceType.CUDA:
            yield part_of.get(event.linked_correlation_id(), "rest"), event.duration_ns() / 1e9


def _inner_times(events: list[Any]) -> list[int]:
    """Nanoseconds that others spent inside of each event; events sorted by thread and start."""
    inner = [0] * len(events)
    stack: list[tuple[int, int, int]] = []  # thread, end, number
    for i, event in enumerate(events):
        thread, start, duration = event.start_thread_id(), event.start_ns(), event.duration_ns()
        while stack and (stack[-1][0] != thread or stack[-1][1] <= start):
            stack.pop()
        if stack:
            inner[stack[-1][2]] += duration
        stack.append((thread, start + duration, i))
    return inner


def _owner(name: str) -> str | None:
    return next((part for part, names in OWNERS if any(n in name for n in names)), None)


def matrix_limit(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Floating-point operations per second of the best of many large matrix products."""
    a, b = (torch.randn(2048, 2048, device=device).to(dtype) for _ in range(2))
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < seconds:
        begun = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * 2048**3 / best
