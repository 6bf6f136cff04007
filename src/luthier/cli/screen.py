"""What a person sees while the pipeline works.

On a terminal, a progress bar with the time left; elsewhere, a plain line every so often, so that a
log stays readable. Nothing here decides anything.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from luthier.evaluation import SystemFinished
    from luthier.pipeline import Answered, Event, Prepared
    from luthier.recipe import Tuning
    from luthier.training import Profile, StepDone

T = TypeVar("T")
WIDE = 200
"""Columns of a table in a file or a pipe, where nobody's window is too narrow."""
PLAIN_SECONDS = 5.0
"""Between lines about work whose extent is unknown, when the output is no terminal."""
PLAIN_LINES = 20
"""Lines per training when the output is no terminal."""


def console(*, is_quiet: bool = False) -> Console:
    """Standard output; without a terminal, lines are never wrapped or cut."""
    out = Console(highlight=False, soft_wrap=True, markup=False, quiet=is_quiet)
    if not out.is_terminal:
        out.width = max(out.width, WIDE)
    return out


@contextmanager
def screen(*, is_quiet: bool = False) -> Iterator["Screen"]:
    """A screen that is left clean, whatever happens."""
    shown = Screen(is_quiet=is_quiet)
    try:
        yield shown
    finally:
        shown.clear()


def followed(rows: Iterator[T], total: int, out: Console) -> Iterator[T]:
    """The rows, one by one; how many are done and the time left are shown as they are taken."""
    begun = shown = time.monotonic()
    bar = Progress(
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
        TimeRemainingColumn(),
        console=out, transient=True, disable=not out.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=total)
        for done, row in enumerate(rows, 1):
            yield row
            bar.advance(task)
            is_due = done % -(-total // PLAIN_LINES) == 0 and done < total
            if is_due and not out.is_terminal and time.monotonic() - shown >= 1:
                shown = time.monotonic()
                left = _clock((time.monotonic() - begun) / done * (total - done))
                out.print(f"  {done:,}/{total:,} rows  {left} left")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Screen:
    """Shows events as they come."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self.console = console(is_quiet=is_quiet)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._validation = ""
        self._started = time.monotonic()
        self._training_started = 0.0
        self._first_step = 0

    def show(self, event: "Event") -> None:
        """Show one event."""
        from luthier import pipeline
        from luthier.evaluation import SystemFinished
        from luthier.training import Profile, StepDone, Validated

        match event:
            case pipeline.StageStarted():
                self.clear()
                self.line(event.name)
            case pipeline.Note():
                self.line(event.text)
            case pipeline.Ready():
                self.line(f"{'going on with' if event.is_resumed else 'run'} {event.run_id}")
                for text in describe(event.prepared):
                    self.line(f"  {text}")
            case pipeline.Answered():
                self._show_answered(event)
            case SystemFinished():
                self._show_system(event)
            case StepDone():
                self._show_step(event)
            case Profile():
                for text in describe_profile(event):
                    self.line(f"  {text}")
            case Validated():
                best = " (best)" * event.is_best
                self._validation = f"validation {event.loss:.4f}{_watched(event.watched)}{best}"

    def clear(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def line(self, text: str) -> None:
        """A line with the minutes and seconds since the start."""
        self.console.print(f"{_clock(time.monotonic() - self._started):>6}  {text}")

    def _advance(self, description: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("       {task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(description, total=total)
        self._bar.update(self._task, description=description, completed=done, total=total)

    def _show_answered(self, event: "Answered") -> None:
        if self.console.is_terminal:
            self._advance(event.name, event.done, event.total)

    def _show_system(self, event: "SystemFinished") -> None:
        self.clear()
        scores = ", ".join(
            f"{name} {estimate.value:.3f}"
            for name, estimate in event.estimates.items()
            if estimate.value is not None
        )
        self.line(f"  {event.name}: {scores} ({event.seconds:.0f} s)")

    def _show_step(self, event: "StepDone") -> None:
        if not self._training_started:
            self._training_started = time.monotonic() - event.seconds
            self._first_step = event.step - 1
        speed = event.num_tokens / max(event.seconds, 1e-9)
        text = (
            f"loss {event.loss:.4f}{_watched(event.watched)}  {self._validation:20}"
            f"  {speed:,.0f} tok/s  {event.memory_bytes / 2**30:.1f} GiB"
        )
        if self.console.is_terminal:
            self._advance(text, event.step, event.num_steps)
        elif event.step % max(1, event.num_steps // PLAIN_LINES) == 0:
            self.line(f"  step {event.step}/{event.num_steps}  {text}  {self._left(event)} left")

    def _left(self, event: "StepDone") -> str:
        elapsed = time.monotonic() - self._training_started
        done = max(1, event.step - self._first_step)
        return _clock(elapsed / done * (event.num_steps - event.step))


def describe(prepared: "Prepared") -> list[str]:
    """What will be done, in a few lines: rows, tokens, steps."""
    from luthier.data import Rated
    from luthier.recipe import num_steps, settled

    recipe, train = prepared.recipe, prepared.train.ledger
    share = train.num_supervised / max(1, train.num_tokens)
    lines = [
        f"model {prepared.source.source}",
        f"data  {train.num_kept:,} training, {prepared.validation.ledger.num_kept:,} validation, "
        f"{len(prepared.test):,} test rows; {train.num_tokens:,} training tokens, "
        f"{share:.0%} of them learnt",
        f"steps {num_steps(recipe, len(prepared.train.encoded)):,} of "
        f"{settled(recipe.training.batch_size)} "
        f"examples, {_counted(settled(recipe.training.epochs), 'epoch')}, "
        f"learning rate {settled(recipe.training.learning_rate):g}, {recipe.method.kind}, "
        f"{_tuning(recipe.tuning)}, {settled(recipe.runtime.dtype)} on "
        f"{settled(recipe.runtime.device)}",
    ]
    for ledger in (train, prepared.validation.ledger):
        if ledger.dropped:
            lines.append(f"{len(ledger.dropped)} {ledger.split} rows are not used; see ledger.json")
    num_bad = sum(isinstance(e, Rated) and not e.is_good for e in prepared.dataset.test)
    if num_bad:
        lines.append(
            f"{num_bad:,} test answers are marked bad, so nothing is measured against them"
        )
    lines += _detectable(prepared)
    if prepared.findings:
        number = _counted(len(prepared.findings), "warning")
        lines.append(f"{number} about rows; luthier check lists them")
    return lines


CHANGED = (0.1, 0.3)
"""Shares of rows whose answer becomes right or wrong, as is usual."""


def _detectable(prepared: "Prepared") -> list[str]:
    """What the test rows will be able to show, where each is right or wrong."""
    from luthier.evaluation import detectable_at
    from luthier.recipe import settled

    evaluation, n = prepared.recipe.evaluation, len(prepared.test)
    if settled(evaluation.primary) not in ("exact", "normalised", "number", "json", "accuracy"):
        return []
    found = [detectable_at(share, n, evaluation.confidence) for share in CHANGED]
    known = [f"{100 * value:.1f}" for value in found if value is not None]
    if not known:
        return [f"{_counted(n, 'test row')} can show no difference reliably; hold out more"]
    return [
        f"{n:,} test rows can show a difference of {' to '.join(known)} points, if "
        f"{CHANGED[0]:.0%} to {CHANGED[1]:.0%} of answers change"
    ]


def _watched(watched: dict[str, float]) -> str:
    """What tells most of a preference method's progress, if there is such."""
    short = {"preference_accuracy": "right", "reward_margin": "margin", "kl_to_start": "KL"}
    return "".join(f" {name} {watched[key]:.2f}" for key, name in short.items() if key in watched)


def describe_profile(profile: "Profile") -> list[str]:
    """Where the time of the measured steps went, in a few lines."""
    shares = ", ".join(f"{part} {share:.0%}" for part, share in profile.parts.items())
    return [
        f"profile of {_counted(profile.num_steps, 'step')}: {shares}",
        f"{profile.tokens_per_second:,.0f} tokens/s; of the tokens {profile.masked_share:.0%} "
        f"carry no loss, {profile.computed_share:.0%} are computed (beginnings shared), "
        f"{profile.padding_share:.1%} of those are filler",
        f"{profile.flops / 1e9:,.0f} GFLOP/s over the whole step, "
        f"{profile.flops_at_work / 1e9:,.0f} in linears, attention and head: "
        f"{profile.flops / profile.limit:.0%} and "
        f"{profile.flops_at_work / profile.limit:.0%} of the {profile.limit / 1e9:,.0f} this "
        "machine does on large matrices",
    ]


def _tuning(tuning: "Tuning") -> str:
    """What learns, in a few words."""
    from luthier.recipe import LastLayers, LoRA

    if isinstance(tuning, LoRA):
        names = {"rslora": "rsLoRA", "dora": "DoRA"}
        name = " + ".join(names[variant] for variant in tuning.variants) or "LoRA"
        return f"{name} rank {tuning.rank}" + (", 4 bits" if tuning.quantize == "nf4" else "")
    if isinstance(tuning, LastLayers):
        return f"the last {_counted(tuning.count, 'block')}"
    names_of_rest = {
        "full": "all weights",
        "head": "the head alone",
        "embeddings": "the embeddings",
    }
    return names_of_rest[tuning.kind]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Counted:
    """How many of some things are done, with the time left where it is known how many there are."""

    def __init__(self, out: Console, noun: str, total: int | None) -> None:
        self._out, self._noun, self._total = out, noun, total
        self._begun = self._shown = time.monotonic()
        of_all = "/{task.total:,.0f}" if total else ""
        self._bar = Progress(
            BarColumn(bar_width=24),
            TextColumn(f"{{task.completed:,.0f}}{of_all} {noun}"),
            TimeRemainingColumn(),
            console=out, transient=True, disable=not out.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> "Counted":
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def show(self, done: int) -> None:
        """So many are done."""
        self._bar.update(self._task, completed=done)
        now = time.monotonic()
        if self._out.is_terminal or now - self._shown < PLAIN_SECONDS:
            return
        self._shown = now
        left = ""
        if self._total and done:
            left = f"  {_clock((now - self._begun) / done * (self._total - done))} left"
        self._out.print(f"  {done:,} {self._noun}{left}")
