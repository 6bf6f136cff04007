"""Training rows become more: asked otherwise, answered by a stronger model, or harder ones.

Whoever answers is handed in. Every row so made says so, is like no row that is there, stands near
no held-out row, and is learnt from only. What was answered is kept: broken-off work goes on.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from luthier.curation.looking import Spool, folded, question_of
from luthier.curation.near import THRESHOLD, find_alike
from luthier.data import Message, Place, Row, example_of
from luthier.errors import ConfigError
from luthier.evaluation import REFUSES, SPEAKS_AS_AI
from luthier.runs import Content, Datasets, KeptAnswers, KeptRow, NewRow, Origin, Version

WAYS = ("paraphrase", "answer", "hard")
MARK = "synthetic"
"""Field of a row that nobody wrote: how it was made, and by what."""
EXAMPLES = 3
AT_ONCE = 64
PARAPHRASE = (
    "Rewrite the request below so that it asks for exactly the same thing in other words, as "
    "another person would. Keep every name, number and condition. Write the rewritten request only."
)
HARD = (
    "Below are solved examples of a task. Write one new example of the same task that is harder "
    "than these: longer, rarer or easier to get wrong, and with a right answer. Write it as one "
    'JSON object {"question": "...", "answer": "..."} and nothing else.'
)
ECHO, LOOP = 18, 3
"""Characters that an answer does not repeat of what the teacher was told, and equal lines in it."""
JSON_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


class Teacher(Protocol):
    """Answers conversations."""

    @property
    def name(self) -> str:
        """As rows that it made name it."""
        ...

    def answer(self, messages: Sequence[Message]) -> str:
        """The answer to a conversation. Raises TeacherError when there is none."""
        ...


class TeacherError(Exception):
    """A teacher could not answer; says why."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What is to be made."""

    way: str
    limit: int | None = None
    """Rows that it is made from, the same ones whatever else is there."""
    copies: int = 1
    """Rows made from each."""
    alike: float = THRESHOLD
    instructions: str = ""
    """What the teacher is told besides."""
    at_once: int = 8
    """Requests on their way together."""

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise ConfigError(f"is {self.way!r}", where="way", accepted=", ".join(WAYS))
        for name in ("limit", "copies", "at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"is {value}", where=name, accepted="1 or more")


@dataclass(frozen=True, slots=True)
class Grown:
    """What came of it."""

    version: Version
    num_new: int
    dropped: Mapping[str, int]
    """Reason -> answers that became no row."""


def check_parted(version: Version) -> None:
    """Raise ConfigError where rows have no split yet."""
    if not version.rows_in("train"):
        raise ConfigError(
            "is not parted yet", where=version.reference,
            advice=f"first: luthier data split {version.reference}; what is made from a row that "
            "is later held out would give it away",
        )  # fmt: skip


def grow_version(
    datasets: Datasets,
    version: Version,
    teacher: Teacher,
    growth: Growth,
    observe: Callable[[int, int], None] = lambda done, total: None,
) -> Grown:
    """Put rows that a teacher made behind those of a version, as the newest one.

    Raises ConfigError where rows are not parted yet, or nothing new came of it.
    """
    check_parted(version)
    content = datasets.content(version)
    tasks = list(_tasks(content, growth))
    kept = _Answers(datasets.folder / version.name / "answers", teacher, growth.at_once)
    dropped = Counter[str]()
    made: list[tuple[KeptRow, dict[str, Any]]] = []
    for done, (task, said) in enumerate(kept.answers(tasks), 1):
        fields = _made(task, said, growth.way, dropped)
        if fields is not None:
            made.append((task.row, {**fields, MARK: f"{growth.way} by {teacher.name}"}))
        observe(done, len(tasks))
    new = _unlike(content, made, growth, dropped)
    if not new:
        said = ", ".join(f"{number} {reason}" for reason, number in dropped.items())
        said += f" ({kept.trouble})" if kept.trouble else ""
        raise ConfigError(f"no new row came of it: {said}", where=version.reference)

    def rows() -> Iterator[NewRow]:
        for row in content.rows():
            yield NewRow(row.fields, row.split, row.origin)
        for row, fields in new:
            yield NewRow(fields, "train", f"{row.origin} ({fields[MARK]})")

    details = {
        "way": growth.way, "teacher": teacher.name, "from": len(tasks), "new": len(new),
        "dropped": dict(dropped),
    }  # fmt: skip
    grown, _ = datasets.add(version.name, rows(), Origin("grow", version.reference, details))
    return Grown(grown, len(new), dropped)


@dataclass(frozen=True, slots=True)
class _Task:
    """Something to be answered: from which row, and which of its copies."""

    row: KeptRow
    copy: int
    messages: tuple[Message, ...]


def _tasks(content: Content, growth: Growth) -> Iterator[_Task]:
    own = [r for r in content.rows() if content.split_of(r) == "train" and MARK not in r.fields]
    own.sort(key=lambda row: sha256(f"grow\0{row.id}".encode()).digest())
    chosen = own[: growth.limit]
    for i, row in enumerate(chosen):
        for copy in range(growth.copies):
            nearby = [own[(i + n) % len(own)] for n in range(EXAMPLES)]
            messages = _asked(row, nearby, growth)
            if messages:
                again = f"This is the wish for variant {copy + 1}." if copy else ""
                said = "\n\n".join(filter(None, (growth.instructions, again)))
                extra = (Message("system", said),) if said else ()
                yield _Task(row, copy, (*extra, *messages))


def _asked(row: KeptRow, nearby: Sequence[KeptRow], growth: Growth) -> tuple[Message, ...]:
    """What the teacher is asked; nothing where a row has nothing to ask with."""
    example = example_of(Row(Place(row.origin, row.position), row.fields))
    if growth.way == "answer":
        given = row.fields.get("messages", row.fields.get("prompt"))
        if example is None and isinstance(given, str):
            return (Message("user", given),)
        return example.prompt if example is not None else ()
    if example is None or not question_of(example):
        return ()
    if growth.way == "paraphrase":
        return (Message("user", f"{PARAPHRASE}\n\n{example.prompt[-1].content}"),)
    solved = []
    for other in nearby:
        known = example_of(Row(Place(other.origin, other.position), other.fields))
        if known is not None:
            pair = {"question": known.prompt[-1].content, "answer": known.target.content}
            solved.append(json.dumps(pair, ensure_ascii=False))
    return (Message("user", "\n\n".join([HARD, *solved])),)


def _made(task: _Task, said: str | None, way: str, dropped: Counter[str]) -> dict[str, Any] | None:
    """The fields of the row that an answer makes; None after counting why there is none."""
    text = (said or "").strip()
    if said is None or not text:
        dropped["failed" if said is None else "empty"] += 1
        return None
    if REFUSES.search(text[:200]) or SPEAKS_AS_AI.search(text):
        dropped["refused"] += 1
        return None
    if (way == "paraphrase" and _echoes(task, text)) or _loops(text):
        dropped["repeating what was asked, or itself"] += 1
        return None
    if way == "answer":
        return _with_answer(task.row.fields, text)
    if way == "paraphrase":
        return _with_question(task.row.fields, text.strip('"'))
    found = JSON_OBJECT.search(text)
    try:
        pair: Any = json.loads(found.group()) if found else None
        question, answer = str(pair["question"]).strip(), pair["answer"]
    except (ValueError, TypeError, KeyError, RecursionError):
        dropped["not as asked for"] += 1
        return None
    written = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    if not question or not written.strip():
        dropped["empty"] += 1
        return None
    return _with_answer(_with_question(task.row.fields, question), written)


def _echoes(task: _Task, text: str) -> bool:
    """Whether a paraphrase says what the teacher was told to do, as small models do."""
    said, asked = folded(text), folded(_question(task.row))
    told = folded(PARAPHRASE)
    runs = {told[i : i + ECHO] for i in range(len(told) - ECHO + 1)}
    return any(
        said[i : i + ECHO] in runs and said[i : i + ECHO] not in asked
        for i in range(max(0, len(said) - ECHO + 1))
    )


def _loops(text: str) -> bool:
    """Whether an answer says one line over and over."""
    lines = [line for line in map(folded, text.splitlines()) if line]
    return any(len(set(lines[i : i + LOOP])) == 1 for i in range(len(lines) - LOOP + 1))


def _question(row: KeptRow) -> str:
    """What a row asks; nothing where it is no example."""
    example = example_of(Row(Place(row.origin, row.position), row.fields))
    return question_of(example) if example else ""


QUESTIONS = ("prompt", "instruction", "text", "anchor", "query", "question", "input")
ANSWERS = ("completion", "output", "response", "answer", "label", "positive")


def _with_question(fields: dict[str, Any], text: str) -> dict[str, Any]:
    """The row asking something else last; its own id is left out."""
    fields = {name: value for name, value in fields.items() if name != "id"}
    if "messages" in fields:
        messages = list(fields["messages"])
        last = max(i for i, message in enumerate(messages) if message.get("role") == "user")
        messages[last] = {**messages[last], "content": text}
        return {**fields, "messages": messages}
    name = next((name for name in QUESTIONS if name in fields), "prompt")
    return {**fields, name: text}


def _with_answer(fields: dict[str, Any], text: str) -> dict[str, Any]:
    fields = {name: value for name, value in fields.items() if name != "id"}
    if "messages" in fields:
        before = list(fields["messages"])
        if before and before[-1].get("role") == "assistant":
            before.pop()
        return {**fields, "messages": [*before, {"role": "assistant", "content": text}]}
    name = next((name for name in ANSWERS if name in fields), "completion")
    return {**fields, name: text}


def _unlike(
    content: Content,
    made: Sequence[tuple[KeptRow, dict[str, Any]]],
    growth: Growth,
    dropped: Counter[str],
) -> list[tuple[KeptRow, dict[str, Any]]]:
    """Rows made that are right, like none that is there, and near none that is held out."""
    right = []
    for row, fields in made:
        example = example_of(Row(Place(row.origin, row.position), fields))
        if example is None:
            dropped["no row"] += 1
        else:
            right.append(
                (row, fields, folded(question_of(example)), folded(example.target.content))
            )
    known: dict[str, set[str]] = {}
    with Spool() as spool:
        held = []
        for kept in content.rows():
            example = example_of(Row(Place(kept.origin, kept.position), kept.fields))
            asked = folded(question_of(example)) if example else ""
            spool.add([asked])
            held.append(kept.split in ("validation", "test"))
            known.setdefault(asked, set()).add(folded(example.target.content) if example else "")
        spool.add([asked for _, _, asked, _ in right])
        groups = find_alike(spool, growth.alike)
    held_groups = {int(groups[i]) for i, is_held in enumerate(held) if is_held}
    new = []
    for number, (row, fields, asked, said) in enumerate(right, len(held)):
        if int(groups[number]) in held_groups:
            dropped["near a held-out row"] += 1
        elif asked in known and growth.way != "answer":
            dropped["asking what a row that is there asks"] += 1
        elif said in known.get(asked, ()):
            dropped["as a row that is there"] += 1
        else:
            known.setdefault(asked, set()).add(said)
            new.append((row, fields))
    return new


class _Answers:
    """Answers of a teacher, kept in a file: what was asked before is not asked again."""

    def __init__(self, folder: Path, teacher: Teacher, at_once: int) -> None:
        name = sha256(teacher.name.encode()).hexdigest()[:16]
        self._kept, self._teacher = KeptAnswers(folder / f"{name}.jsonl"), teacher
        self._at_once = at_once
        self.trouble = ""
        """Why the teacher failed last."""

    def answers(self, tasks: Iterable[_Task]) -> Iterator[tuple[_Task, str | None]]:
        """Each task with its answer, in order; None where the teacher failed."""
        waiting = iter(tasks)
        with ThreadPoolExecutor(self._at_once) as pool:
            while some := list(islice(waiting, AT_ONCE)):
                yield from zip(some, pool.map(self._answer, some), strict=True)

    def _answer(self, task: _Task) -> str | None:
        asked = [task.copy, *([message.role, message.content] for message in task.messages)]
        known = self._kept.find(asked)
        if known is not None:
            return str(known)
        try:
            said = self._teacher.answer(task.messages)
        except TeacherError as error:
            self.trouble = str(error)
            return None
        self._kept.keep(asked, said)
        return said
