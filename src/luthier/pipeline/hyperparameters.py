"""A search for settings: many trainings, judged by validation loss alone, then one whole run.

Optuna proposes what to try (TPE, Bergstra et al. 2011) and breaks off what does worse than the
median of earlier ones. What was tried lies in the workspace's `searches.db`, so the same command
goes on, and the same command in another process helps. The held-out test rows are looked at once,
by the run with the best settings.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from luthier.errors import ConfigError, LuthierError, TrainingError
from luthier.pipeline.events import Event, Note
from luthier.pipeline.learning import Circumstances
from luthier.pipeline.preparing import Prepared, prepare
from luthier.pipeline.tuning import Tuned, tune, work_of
from luthier.recipe import (
    Choices,
    LoRA,
    Range,
    ReadRecipe,
    Tried,
    recipe_hash,
    settled,
)
from luthier.report import Attempt, render_search_page
from luthier.runs import instant_lock, is_locked, write_atomically
from luthier.training import TrainingEvent, Validated, join_ranks

DATABASE = "searches.db"
"""Apart from the workspace's own: both Optuna and Luthier keep a version of their tables, under
one name."""
SPREAD = 8.0
"""Factor to either side of a learning rate that nobody gave a range of."""
RANKS = (4, 8, 16, 32)
AT_RANDOM = 5
"""Attempts before proposals learn from what was tried, and before any is broken off."""
JUST_BEGUN = 30.0
"""Seconds within which an attempt may not have taken its lock yet."""
BEGUN_AS = "begun as"
"""Number of the attempt that one goes on with."""
LEAST_FAILURES = 3
"""Attempts that all fail, after which a search ends with their error."""

Read = Callable[[Sequence[str]], ReadRecipe]
"""The recipe with settings such as "training.epochs=2" on top."""


@dataclass(frozen=True)
class Searched:
    """What a search found."""

    attempts: tuple[Attempt, ...]
    """In the order they were begun."""
    best: Attempt | None
    tuned: Tuned | None
    """The run with the best settings; None while attempts are missing."""
    folder: Path

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / "search.html"


def search_settings(
    read: Read,
    space: Sequence[Tried],
    number: int,
    observe: Callable[[Event], None] = lambda event: None,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> Searched:
    """Try settings until so many attempts are there, then go the whole way with the best.

    Raises ConfigError for settings that the recipe refuses, and where there are no validation rows.
    """
    whole = prepare(read([]), lambda text: observe(Note(text)))
    chosen = tuple(space) or _usual(whole)
    _check(whole, read, chosen, number)
    study = _Study(whole, chosen)
    search = _Search(read, study, observe, is_interrupted)
    while not is_interrupted() and study.num_begun() < number:
        search.attempt()
    attempts = study.attempts()
    best = min((a for a in attempts if a.state == "finished"), key=_loss, default=None)
    is_done = not is_interrupted() and study.num_ended() >= number
    tuned = None
    if best is not None and is_done:
        observe(Note(f"the whole run with the settings of attempt {best.number}"))
        prepared = prepare(read(_given(best.settings)), lambda text: observe(Note(text)))
        tuned = tune(prepared, observe, is_interrupted)
    study.draw()
    return Searched(attempts, best, tuned, study.folder)


def _loss(attempt: Attempt) -> float:
    return math.inf if attempt.loss is None else attempt.loss


def _usual(whole: Prepared) -> tuple[Tried, ...]:
    """What is tried where nobody says: the learning rate, and an adapter's rank."""
    recipe = whole.recipe
    rate = settled(recipe.training.learning_rate)
    tried: list[Tried] = [Range("training.learning_rate", rate / SPREAD, rate * SPREAD, False)]
    ranks = tuple(str(rank) for rank in RANKS if rank <= whole.facts.narrowest_layer)
    if isinstance(recipe.tuning, LoRA) and len(ranks) > 1:
        tried.append(Choices("tuning.rank", ranks))
    return tuple(tried)


def _check(whole: Prepared, read: Read, space: Sequence[Tried], number: int) -> None:
    if number < 2:
        raise ConfigError(f"is {number}", where="--attempts", accepted="2 or more")
    if not whole.validation.examples:
        raise ConfigError(
            "has no validation rows, by whose loss settings are chosen", where="data",
            accepted="data.validation, or a data.validation_share above 0",
        )  # fmt: skip
    for tried in space:
        for end in tried.ends:
            read([f"{tried.field}={end}"])  # raises ConfigError


def _given(settings: Mapping[str, str]) -> list[str]:
    return [f"{field}={value}" for field, value in settings.items()]


class _Study:
    """What was tried so far, in the workspace."""

    def __init__(self, whole: Prepared, space: Sequence[Tried]) -> None:
        self.space, recipe = space, whole.recipe
        workspace = recipe.runtime.workspace
        asked = [recipe_hash(recipe), whole.dataset.fingerprint, whole.source.sha256,
                 *map(repr, space)]  # fmt: skip
        digest = sha256("\0".join(asked).encode()).hexdigest()[:8]
        self.title = recipe.name or recipe.data.train.stem[:40]
        self.folder = workspace / "searches" / f"{self.title[:40]}-{digest}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with _quiet() as optuna:
            self._optuna = optuna
            storage = optuna.storages.RDBStorage(f"sqlite:///{workspace / DATABASE}")
            self._study = optuna.create_study(
                storage=storage, study_name=self.folder.name, load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=AT_RANDOM),
            )  # fmt: skip
            seed = recipe.training.seed + len(self._study.trials)
            self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=AT_RANDOM, seed=seed)
        self._give_up_the_dead()

    def _give_up_the_dead(self) -> None:
        """Attempts whose process is gone are taken up again, from their last checkpoint."""
        states = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            age = (datetime.now() - trial.datetime_start).total_seconds()
            if age > JUST_BEGUN and not is_locked(self.place(trial) / ".lock"):
                self.tell(trial, None, "interrupted")

    def place(self, trial: Any) -> Path:
        """Folder of an attempt; one that is taken up again has that of its beginning."""
        return self.folder / f"attempt-{trial.user_attrs.get(BEGUN_AS, trial.number)}"

    def ask(self) -> Any:
        """The next attempt: a trial of Optuna's."""
        return self._study.ask({tried.field: self._distribution(tried) for tried in self.space})

    def settings(self, proposed: Mapping[str, Any]) -> dict[str, str]:
        """What is proposed, as the recipe may be given it."""
        by_field = {tried.field: tried for tried in self.space}
        return {
            field: by.written(value) if isinstance(by := by_field[field], Range) else str(value)
            for field, value in proposed.items()
        }

    def _distribution(self, tried: Tried) -> Any:
        distributions = self._optuna.distributions
        if isinstance(tried, Choices):
            return distributions.CategoricalDistribution(tried.values)
        if tried.is_whole:
            low, high = int(tried.low), int(tried.high)
            return distributions.IntDistribution(low, high, log=tried.is_logarithmic)
        return distributions.FloatDistribution(tried.low, tried.high, log=tried.is_logarithmic)

    def tell(self, trial: Any, loss: float | None, state: str) -> None:
        """How an attempt ended."""
        states = self._optuna.trial.TrialState
        if state in ("finished", "failed"):
            # What fails is as bad as can be: attempts of which nothing is known are made again.
            self._study.tell(trial.number, math.inf if loss is None else loss)
            return
        ended = states.PRUNED if state == "broken off" else states.FAIL
        self._study.tell(trial.number, state=ended)
        if state == "interrupted":
            begun_as = trial.user_attrs.get(BEGUN_AS, trial.number)
            self._study.enqueue_trial(trial.params, user_attrs={BEGUN_AS: begun_as})

    def num_begun(self) -> int:
        """Attempts that ended or are under way, here or elsewhere."""
        return self.num_ended() + self._count("RUNNING")

    def num_ended(self) -> int:
        """Attempts that finished, failed, or were broken off."""
        return self._count("COMPLETE", "PRUNED")

    def _count(self, *names: str) -> int:
        states = tuple(self._optuna.trial.TrialState[name] for name in names)
        return len(self._study.get_trials(deepcopy=False, states=states))

    def attempts(self) -> tuple[Attempt, ...]:
        """All that was tried, but for attempts that were only interrupted."""
        found: list[Attempt] = []
        for trial in self._study.get_trials(deepcopy=False):
            state = {"COMPLETE": "finished", "PRUNED": "broken off"}.get(trial.state.name)
            if state is None:
                continue
            said = str(trial.user_attrs.get("error", ""))
            if said:
                state, loss = "failed", None
            elif state == "finished":
                loss = trial.value
            else:
                loss = min(trial.intermediate_values.values(), default=None)
            took = trial.duration.total_seconds() if trial.duration else 0.0
            settings = self.settings(trial.params)
            found.append(Attempt(len(found) + 1, settings, loss, state, took, said))
        return tuple(found)

    def draw(self) -> None:
        """Write the page and the numbers."""
        attempts = self.attempts()
        page = render_search_page(self.title, [tried.field for tried in self.space], attempts)
        write_atomically(self.folder / "search.html", page)
        facts = json.dumps([asdict(attempt) for attempt in attempts], indent=1)
        write_atomically(self.folder / "search.json", facts)


@contextmanager
def _quiet() -> Iterator[Any]:
    """Optuna, which says nothing but warnings; ConfigError where it is not installed."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise ConfigError(
            "needs Optuna, which is not installed", where="luthier search",
            advice="pip install 'luthier[search]'",
        ) from None  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield optuna


class _Search:
    """Makes attempts, one after the other."""

    def __init__(
        self,
        read: Read,
        study: _Study,
        observe: Callable[[Event], None],
        is_interrupted: Callable[[], bool],
    ) -> None:
        self._read, self._study = read, study
        self._observe, self._is_interrupted = observe, is_interrupted
        self._failures: list[str] = []

    def attempt(self) -> None:
        """Train once with proposed settings, and tell what came of it."""
        trial = self._study.ask()
        settings = self._study.settings(trial.params)
        place = self._study.place(trial)
        place.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with instant_lock(place / ".lock"):
            try:
                loss, state = self._trained(trial, settings, place)
            except LuthierError as error:
                loss, state = None, "failed"
                trial.set_user_attr("error", str(error))
                self._failures.append(str(error))
            self._study.tell(trial, loss, state)
        if state != "interrupted":
            shutil.rmtree(place, ignore_errors=True)
        said = f"validation loss {loss:.4f}" if loss is not None else state
        took = time.perf_counter() - started
        words = f"{said} (broken off)" if state == "broken off" else said
        self._observe(Note(f"{', '.join(_given(settings))}: {words} ({took:.0f} s)"))
        if len(self._failures) >= LEAST_FAILURES and not any(
            each.state == "finished" for each in self._study.attempts()
        ):
            raise TrainingError(
                f"{len(self._failures)} attempts failed, the last: {self._failures[-1]}",
                where="luthier search", advice="luthier train with one of the settings says more",
            )  # fmt: skip

    def _trained(
        self, trial: Any, settings: Mapping[str, str], place: Path
    ) -> tuple[float | None, str]:
        """The best validation loss, and whether training ended, was broken off or interrupted."""
        prepared = prepare(self._read(_given(settings)), lambda text: None)
        is_hopeless = False

        def watch(event: TrainingEvent) -> None:
            nonlocal is_hopeless
            if isinstance(event, Validated) and math.isfinite(event.loss):
                trial.report(event.loss, event.step)
                is_hopeless = trial.should_prune()

        work = work_of(prepared)
        ranks = join_ranks(settled(prepared.recipe.runtime.device))
        stop = Circumstances(
            place / "checkpoints", ranks, watch, lambda: is_hopeless or self._is_interrupted()
        )
        outcome, _ = work.learn(work.load(), stop)
        if outcome.status == "interrupted":
            return outcome.best_loss, "broken off" if is_hopeless else "interrupted"
        if outcome.best_loss is None or not math.isfinite(outcome.best_loss):
            raise TrainingError("ended without a validation loss", where=str(place))
        return outcome.best_loss, "finished"
