"""Tasks of EleutherAI's lm-evaluation-harness on local models, compared row by row.

The harness makes prompts and scores; models compute here, each question's beginning once for all
its choices. Its tasks fetch their data from a hub, unless their file names local data; no code of
a dataset is run.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from luthier.errors import ConfigError
from luthier.evaluation import (
    Comparison,
    Estimate,
    Metric,
    Prediction,
    SystemResult,
    compare,
    estimate,
)
from luthier.models import Sampling, choice_likelihoods, generate
from luthier.pipeline.events import Answered, Event
from luthier.pipeline.local import LocalModel, open_local
from luthier.recipe import Judging, Runtime
from luthier.runs import write_atomically
from luthier.tokens import IGNORED, Encoded

try:
    import lm_eval
    from lm_eval.api.model import TemplateLM
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise ConfigError(
        "needs lm-evaluation-harness", where="--harness", advice="pip install 'luthier[harness]'"
    ) from error

DEFAULT_ANSWER = 256
"""Tokens of an answer, where the task does not say."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One model on one task."""

    task: str
    metric: Metric
    system: str
    estimate: Estimate
    comparison: Comparison | None
    """Of the first model against this one; None for the first."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A local model as the harness asks it."""

    def __init__(self, opened: LocalModel, observe: Callable[[int, int], None]) -> None:
        super().__init__()
        self._opened, self._observe = opened, observe
        self._longest = opened.tokenizer.context_length or 2048

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return self._special("eos_token", min(self._opened.tokenizer.stop_ids))

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text: the token that begins one, or else the one that ends one."""
        return self._special("bos_token", self.eot_token_id)

    def _special(self, name: str, otherwise: int) -> int:
        tokenizer = self._opened.tokenizer
        found = tokenizer.backend.token_to_id(tokenizer.special.get(name, ""))
        return otherwise if found is None else found

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids of a text, after what the tokenizer begins texts with, unless that is forbidden."""
        tokenizer = self._opened.tokenizer
        if add_special_tokens is False:
            return tokenizer.encode(string).ids
        return tokenizer.encode_opening(string)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Of continuations of texts; the screen has its own progress bars."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Of continuations [after, ids]; the choices of a question stand one after the other."""
        return self._weighed(
            [
                [self._encoded(before, after) for _, before, after in own]
                for _, own in groupby(requests, key=lambda request: request[1])
            ]
        )

    def _weighed(self, grouped: Sequence[Sequence[Encoded]]) -> list[tuple[float, bool]]:
        found = choice_likelihoods(
            self._opened.model, grouped, budget=self._opened.loss_tokens,
            observe=lambda done: self._observe(done, len(grouped)),
        )  # fmt: skip
        return [(each.log, each.is_greedy) for own in found for each in own]

    def _encoded(self, before: list[int], after: list[int]) -> Encoded:
        """What is too long loses its beginning, as is usual."""
        # The last token is only told, never read.
        ids = [*before, *after][-self._longest - 1 :]
        start = max(len(ids) - len(after), 1)
        labels = [*[IGNORED] * start, *ids[start:]]
        return Encoded("", ids, labels, ((start, len(ids)),))

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Of whole texts, in the harness's windows of the model's length."""
        windows = [
            list(map(make_disjoint_window, self._windows(request.args[0]))) for request in requests
        ]
        # What begins alike here are all texts: each stands alone.
        each = iter(self._weighed([[self._encoded(*pair)] for own in windows for pair in own]))
        return [sum(next(each)[0] for _ in own) for own in windows]

    def _windows(self, text: str) -> Iterator[tuple[list[int], list[int]]]:
        found: Iterator[tuple[list[int], list[int]]] = get_rolling_token_windows(
            self.tok_encode(text), self.prefix_token_id, self._longest, context_len=1
        )
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers up to the first of the texts that end them."""
        found: dict[int, str] = {}
        order = range(len(requests))
        for asked, places in groupby(
            sorted(order, key=lambda i: _how(requests[i])), key=lambda i: _how(requests[i])
        ):
            own, settings = list(places), json.loads(asked)
            texts = self._answers([requests[i].args[0] for i in own], settings)
            found |= zip(own, texts, strict=True)
        return [found[i] for i in order]

    def _answers(self, prompts: Sequence[str], settings: dict[str, Any]) -> Iterator[str]:
        known = normalize_gen_kwargs(settings, DEFAULT_ANSWER)
        ends = [end for end in known["until"] if end]
        heat = float(known.get("temperature") or 0.0) if known["do_sample"] else 0.0
        most = int(known["max_gen_toks"])
        ids = [self.tok_encode(prompt)[-max(self._longest - most, 1) :] for prompt in prompts]
        answers = generate(
            self._opened.model, ids, max_new_tokens=most,
            stop_ids=self._opened.tokenizer.stop_ids,
            sampling=Sampling(heat) if heat else None,
            observe=lambda done: self._observe(done, len(ids)),
        )  # fmt: skip
        for answer in answers:
            text = self._opened.tokenizer.decode(answer.ids)
            yield text[: min([text.find(end) for end in ends if end in text], default=len(text))]


def _how(request: Any) -> str:
    return json.dumps(request.args[1], sort_keys=True)


def run_harness(
    models: Sequence[str],
    tasks: Sequence[str],
    runtime: Runtime,
    judging: Judging,
    observe: Callable[[Event], None] = lambda event: None,
) -> tuple[list[TaskScore], Path]:
    """Put tasks to models, and compare the first with the others; the scores, and their file.

    Tasks are names that the harness knows, or files of tasks. Raises ConfigError for others.
    """
    folders = sorted({str(Path(task).resolve().parent) for task in tasks if _is_file(task)})
    names = [_name_in(Path(task)) if _is_file(task) else task for task in tasks]
    known = TaskManager(include_path=folders or None)
    unknown = [name for name in names if name not in known.all_tasks]
    if unknown:
        raise ConfigError(
            f"does not know {', '.join(unknown)}", where="--harness",
            accepted="a task of lm-evaluation-harness, or a file of one (.yaml)",
        )  # fmt: skip
    found = {model: _asked(model, names, known, runtime, judging, observe) for model in models}
    scores = list(_scores(found, judging))
    asked = json.dumps([list(models), names, judging.limit])
    place = runtime.workspace / "harness" / f"{sha256(asked.encode()).hexdigest()[:12]}.json"
    write_atomically(place, json.dumps(found, indent=1, default=str))
    return scores, place


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


def _name_in(file: Path) -> str:
    """The name of the task in a file. Raises ConfigError."""
    try:
        # Its own tags, such as !function, are the harness's to read.
        text = file.read_text("utf-8")
        root = yaml.compose(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read: {error}", where=str(file)) from error
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    name = next((value.value for key, value in pairs if key.value == "task"), "")
    if not isinstance(name, str) or not name:
        raise ConfigError("names no task", where=str(file), accepted="task: NAME in it")
    return name


Asked = dict[str, dict[str, Any]]
"""Task -> what it calls its metrics, and each row's scores by its place."""


def _asked(
    model: str,
    names: Sequence[str],
    known: TaskManager,
    runtime: Runtime,
    judging: Judging,
    observe: Callable[[Event], None],
) -> Asked:
    opened = open_local(model, runtime)
    asking = HarnessModel(opened, lambda n, total: observe(Answered(model, n, total)))
    try:
        done = lm_eval.simple_evaluate(
            model=asking, tasks=list(names), limit=judging.limit, task_manager=known,
            bootstrap_iters=0, verbosity="ERROR",
        )  # fmt: skip
    except (ValueError, KeyError, OSError) as error:  # of the harness, a dataset, the network
        raise ConfigError(
            f"the harness cannot ask {', '.join(names)}: {type(error).__name__}: {error}",
            where="--harness",
            advice="see whether the task's data can be had here; name each task once",
        ) from error
    return {
        task: {
            "higher_is_better": done["higher_is_better"].get(task, {}),
            "rows": _by_row(rows),
            # Of whole tasks: what has no number for each row is told here.
            "results": {n: v for n, v in done["results"].get(task, {}).items() if n != "alias"},
        }
        for task, rows in done["samples"].items()
    }


def _by_row(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each row's scores by its place. A task may look at its answers in several ways (filters)."""
    several = len({row.get("filter", "none") for row in rows}) > 1
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        how = f" ({row['filter']})" if several else ""
        scores = {f"{name}{how}": row[name] for name in row["metrics"]}
        found.setdefault(str(row["doc_id"]), {}).update(scores)
    return found


def _scores(found: dict[str, Asked], judging: Judging) -> Iterator[TaskScore]:
    """Each metric of each task, of each model."""
    of_first = next(iter(found.values()))
    for task, asked in of_first.items():
        metrics = list(_metrics(asked, [own[task]["rows"] for own in found.values()]))
        yield from _of_wholes(task, found, {metric.name for metric in metrics})
        for metric in metrics:
            systems = [_system(model, metric, own[task]["rows"], asked["rows"])
                       for model, own in found.items()]  # fmt: skip
            yield from _compared(task, metric, systems, judging)


def _of_wholes(task: str, found: dict[str, Asked], known: Collection[str]) -> Iterator[TaskScore]:
    """Metrics that a task has only as a whole, such as perplexity: values without intervals."""
    of_first = next(iter(found.values()))[task]
    for full, value in of_first["results"].items():
        name, _, way = full.partition(",")
        is_told = name in known or f"{name} ({way})" in known or name.endswith("_stderr")
        if is_told or not way or not isinstance(value, int | float):
            continue
        better = bool(of_first["higher_is_better"].get(name, True))
        metric = Metric(name, name, "number", better, "plain")
        for model, own in found.items():
            whole, n = own[task]["results"].get(full), len(own[task]["rows"])
            yield TaskScore(
                task, metric, model, Estimate(whole, None, None, n, "of the whole task"), None
            )


def _compared(
    task: str, metric: Metric, systems: Sequence[SystemResult], judging: Judging
) -> Iterator[TaskScore]:
    first = systems[0]
    for system in systems:
        value = estimate(metric, system.scores[metric.name], judging, seed=0)
        compared = None
        if system is not first:
            compared = compare(metric, system, first, judging, seed=0)
        yield TaskScore(task, metric, system.name, value, compared)


def _metrics(asked: dict[str, Any], models: Sequence[dict[str, Any]]) -> Iterator[Metric]:
    """Those that are one number for each row; what kind of number is seen from all models."""
    rows = [row for own in models for row in own.values()]
    for name in rows[0] if rows else ():
        values = [row.get(name) for row in rows]
        if all(isinstance(value, int | float) for value in values):
            is_rate = all(value in (0, 1) for value in values)
            better = bool(asked["higher_is_better"].get(name.partition(" (")[0], True))
            yield Metric(name, name, "pass_fail" if is_rate else "number", better,
                         "share" if is_rate else "plain")  # fmt: skip


def _system(model: str, metric: Metric, own: dict[str, Any], rows: dict[str, Any]) -> SystemResult:
    scores = tuple(
        float(own[row][metric.name]) if metric.name in own.get(row, {}) else None for row in rows
    )
    predictions = tuple(Prediction(row, "", True, 0) for row in rows)
    return SystemResult(model, "candidate", predictions, {metric.name: scores}, {}, 0.0, None)
