"""Systems of a trial become predictors: local models, endpoints, recorded answers, with prompts.

Only one local model is in memory at a time; systems that share it come one after the other.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from luthier.curation.logs import candidates
from luthier.data import (
    Chat,
    Example,
    Finding,
    Row,
    example_of,
    prompt_key,
    read_rows,
    refuse_errors,
)
from luthier.errors import ConfigError, DataError
from luthier.evaluation import (
    KEPT_OF_ANSWERS,
    NearestShots,
    Passages,
    Prediction,
    Predictor,
    Prompt,
    RecordedAnswer,
    RecordedPredictor,
    WordSearch,
    choose_shots,
    passages_of,
    question,
    solved_examples,
)
from luthier.models import Sampling
from luthier.pipeline.endpoints import Asked, Asking, EndpointPredictor, open_endpoint
from luthier.pipeline.events import Answered, Event
from luthier.pipeline.local import LocalModel, open_local
from luthier.pipeline.opening import find_run
from luthier.pipeline.starting import EARLIER
from luthier.recipe import System, Trial

ADDRESSES = ("http://", "https://")
ANSWERS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
"""Endings of files of recorded answers."""
TEXTS = (".txt", ".md")
MAX_DOCUMENTS = 200_000_000
"""Bytes of documents that are searched."""
ANSWER_FIELDS = ("answer", "prediction", "completion", "output", "response")


@dataclass
class Opener:
    """Makes the predictor of each system of a trial, and keeps the last local model open."""

    trial: Trial
    train: Sequence[Example]
    max_new_tokens: int
    answers: Path
    """Folder of what endpoints answered before."""
    observe: Callable[[Event], None]
    _loaded: tuple[str, LocalModel] | None = None

    def ordered(self) -> list[System]:
        """The systems, those that share a model one after the other."""
        order = [system.model for system in self.trial.systems]
        return sorted(self.trial.systems, key=lambda system: order.index(system.model))

    def predictor(self, system: System, draw: int) -> Predictor:
        """What answers all rows once. Raises ConfigError, DataError, ModelError."""
        name, kind = name_of(system), kind_of_model(system.model)
        if kind == "recorded":
            found = [a for a in read_answers(Path(system.model)) if a.draw == draw]
            return RecordedPredictor(name, found, system.model)
        prompt, heat = self._prompt(system), self.trial.temperature
        if kind == "local":
            sampling = Sampling(heat, self._seed(draw)) if heat else None
            return self._local(system.model).predictor(
                name, self.max_new_tokens, prompt, self.observe, sampling
            )
        url, _, model = system.model.partition("#")
        how = Asked(heat, self.max_new_tokens, self._seed(draw))
        return EndpointPredictor(
            name,
            Asking(open_endpoint(url, model), how, self.answers),
            prompt,
            lambda done, total: self.observe(Answered(name, done, total)),
        )

    def _local(self, source: str) -> LocalModel:
        if self._loaded is None or self._loaded[0] != source:
            self._loaded = None  # lets the one before it go first
            self._loaded = source, open_local(source, self.trial.runtime)
        return self._loaded[1]

    def _seed(self, draw: int) -> int:
        return self.trial.seed * self.trial.samples + draw

    def _prompt(self, system: System) -> Prompt:
        shots: tuple[Chat, ...] = ()
        nearest, passages = None, None
        if system.shots and system.pick == "nearest":
            solved = tuple(solved_examples(self.train))
            search = WordSearch([question(chat) for chat in solved])
            nearest = NearestShots(solved, search, system.shots)
        elif system.shots:
            shots = choose_shots(self.train, system.shots, self.trial.seed)
        if system.documents is not None:
            texts = tuple(read_passages(system.documents))
            passages = Passages(texts, WordSearch(texts), system.passages)
        return Prompt(system.instructions, shots, nearest, passages)


def kind_of_model(model: str) -> str:
    """endpoint, recorded or local."""
    if model.startswith(ADDRESSES):
        return "endpoint"
    return "recorded" if model.endswith(ANSWERS) else "local"


def check_system(system: System, workspace: Path) -> None:
    """Raise ConfigError for what can be told before anything is loaded or asked."""
    kind = kind_of_model(system.model)
    if kind == "endpoint":
        url, _, model = system.model.partition("#")
        open_endpoint(url, model)
    elif kind == "recorded":
        next(read_answers(Path(system.model)))
        if system.shots or system.instructions or system.documents:
            raise ConfigError(
                "is given a prompt, and its answers are there already",
                where=system.model,
                advice="leave instructions, shots and documents out",
            )
    elif system.model.startswith(EARLIER):
        find_run(workspace, system.model.removeprefix(EARLIER))
    if system.documents is not None:
        next(read_passages(system.documents))


def name_of(system: System) -> str:
    """As given, or made of what tells systems apart."""
    if system.name:
        return system.name
    kind = kind_of_model(system.model)
    model = system.model.partition("#")[2] if kind == "endpoint" else system.model
    is_path = kind == "recorded" or model.startswith("wheel:") or Path(model).exists()
    parts = [Path(model).name if is_path else model]
    if system.instructions:
        digest = sha256(system.instructions.encode()).hexdigest()[:4]
        parts.append(f"instructions {digest}")
    if system.shots:
        nearest = "nearest " if system.pick == "nearest" else ""
        parts.append(f"{system.shots} {nearest}example{'s' * (system.shots > 1)}")
    if system.documents is not None:
        parts.append(f"{system.passages} passage{'s' * (system.passages > 1)}")
    return ", ".join(parts)


def read_passages(folder: Path) -> Iterator[str]:
    """Passages of all texts in a folder and below it, by name. Raises DataError."""
    if not folder.is_dir():
        raise DataError("is no folder", where=str(folder), accepted="a folder of .txt and .md")
    root, num_bytes, has_any = folder.resolve(), 0, False
    for path in sorted(folder.rglob("*")):
        is_inside = path.resolve().is_relative_to(root)  # a link may lead out
        if path.suffix.lower() not in TEXTS or not path.is_file() or not is_inside:
            continue
        num_bytes += path.stat().st_size
        if num_bytes > MAX_DOCUMENTS:
            raise DataError(
                f"holds more than {MAX_DOCUMENTS / 1e6:.0f} MB of texts", where=str(folder)
            )
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        for passage in passages_of(str(path.relative_to(folder)), text):
            has_any = True
            yield passage
    if not has_any:
        raise DataError("holds no text", where=str(folder), accepted="files in .txt or .md")


def read_answers(path: Path) -> Iterator[RecordedAnswer]:
    """Answers of a file: as an evaluation records them, or a log that `data import` reads.

    Raises DataError listing every line that holds none.
    """
    findings: list[Finding] = []
    rows = list(read_rows(path, findings.append))
    if rows and not any(name in rows[0].fields for name in ANSWER_FIELDS[:1]):
        logged = list(candidates(rows, findings.append))
        if logged:
            found = (_logged(row, fields) for row, fields in logged)
            yield from (answer for answer in found if answer is not None)
            return
        findings.clear()
    answers = [_answer(row, findings.append) for row in rows]
    refuse_errors(findings)
    if not answers:
        raise DataError("holds no answer", where=str(path), accepted="one JSON object a line")
    yield from (answer for answer in answers if answer is not None)


def _logged(row: Row, fields: dict[str, object]) -> RecordedAnswer | None:
    example = example_of(Row(row.place, dict(fields)))
    if example is None:
        return None
    name = str(row.fields.get("custom_id", ""))
    answered = Prediction(name, example.target.content, stopped=True, num_tokens=0)
    return RecordedAnswer(answered, prompt_key(example))


def _answer(row: Row, report: Callable[[Finding], None]) -> RecordedAnswer | None:
    fields = row.fields
    text = next((fields[name] for name in ANSWER_FIELDS if isinstance(fields.get(name), str)), None)
    if text is None or not any(fields.get(name) for name in ("id", "messages", "prompt")):
        accepted = f"a text under one of {', '.join(ANSWER_FIELDS)}, and messages, prompt or id"
        named = ", ".join(map(str, fields)) or "none"
        report(Finding(row.place, "no-answer", "", f"has the fields {named}", accepted))
        return None
    known = {name: fields[name] for name in KEPT_OF_ANSWERS if name in fields}
    calls = tuple((str(name), str(arguments)) for name, arguments in fields.get("tool_calls", ()))
    known = {"stopped": True, "num_tokens": 0, **known, "tool_calls": calls}
    solved = None
    if isinstance(fields.get("messages"), list):
        answered_by = {"role": "assistant", "content": text or "-"}
        solved = example_of(Row(row.place, {"messages": [*fields["messages"], answered_by]}))
    elif isinstance(fields.get("prompt"), str):
        solved = example_of(Row(row.place, {"prompt": fields["prompt"], "completion": text or "-"}))
    asked = prompt_key(solved) if solved else ""
    draw = fields.get("draw", 0)
    answered = Prediction(str(fields.get("id", "")), text, **known)
    return RecordedAnswer(answered, asked, draw if isinstance(draw, int) else 0)


def identity_of(system: System, workspace: Path) -> str:
    """What makes a system answer as it does, but for rows and settings: what its name stands for
    now, its prompt, and what is in its documents."""
    parts = [system.model_dump_json(exclude={"name", "input_price", "output_price"})]
    path = Path(system.model)
    if system.model.startswith(EARLIER):
        parts.append(find_run(workspace, system.model.removeprefix(EARLIER)).id)
    elif kind_of_model(system.model) == "recorded" and path.is_file():
        parts.append(sha256(path.read_bytes()).hexdigest())
    elif path.exists():  # another model may lie there by now
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        parts += [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    if system.documents is not None:
        parts += read_passages(system.documents)
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
