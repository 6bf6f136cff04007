"""Checks of single answers: what a model would learn to write, and should not."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from luthier.curation.looking import Seen, folded
from luthier.curation.privacy import mask
from luthier.curation.problems import Gathered, Kind, Problem
from luthier.evaluation import REFUSES, SPEAKS_AS_AI

REFUSAL = Kind(
    "refusals", "warning", "{n} refusing, or speaking as an AI",
    "answers of another assistant; a model learns to refuse from few of them", "drop",
)  # fmt: skip
COPIED = Kind(
    "copied-answers", "warning", "{n} answering with the question itself",
    "a model learns to repeat what it is asked", "drop",
)  # fmt: skip
CUT = Kind(
    "cut-off-answers", "warning", "{n} ending in the middle of a sentence",
    "often cut by a limit where they were made; a model learns to stop there", "drop",
)  # fmt: skip
BROKEN_JSON = Kind(
    "broken-json-answers", "error", "{n} without the JSON that other answers are",
    "what reads the answers fails on them", "drop",
)  # fmt: skip
BROKEN_MARKUP = Kind(
    "broken-markup", "warning", "{n} opening a code block or a tag without closing it",
    "a model learns to leave it open", "",
)  # fmt: skip
BROKEN_CALLS = Kind(
    "broken-tool-calls", "error", "{n} calling tools otherwise than these are defined",
    "a program that receives such a call cannot carry it out", "drop",
)  # fmt: skip

OPEN_ENDS = frozenset(",-([\u2013\u2014")
SURELY_UNFINISHED = re.compile(
    r"(?:[,\-\u2013\u2014(\[]"
    r"|\b(?:the|a|an|and|or|of|to|in|with|for|is|are|was|by|that|this|und|der|die|das|et|le|la|de"
    r"|y|el))$",
    re.IGNORECASE,
)
LONG = 60
"""Characters from which an answer is taken for sentences."""
USUAL = 0.8
"""Share of answers that must be so before the others are wrong."""
LEAST = 10
"""Answers from which something is usual."""
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9_-]*)(?:\s[^<>]*?)?\s*(/?)>")
LISTED = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s")
"""How a line of a list begins."""
VOID = frozenset(("br", "hr", "img", "input", "meta", "link", "p", "li", "td", "tr", "th"))


class RefusalCheck:
    """Finds answers that refuse, or speak of themselves as an AI."""

    name = "refusals"

    def __init__(self) -> None:
        self._found = Gathered(REFUSAL)

    def see(self, rows: Sequence[Seen]) -> None:
        """Look at the beginnings of answers for refusals, and at all for an AI."""
        for row in rows:
            if row.is_written and getattr(row.example, "is_good", True):
                said = row.answer.replace("\u2019", "'")
                found = REFUSES.search(said[:200]) or SPEAKS_AS_AI.search(said)
                if found:
                    self._found.add(row, row.answer, f"says {found.group()!r}")

    def problems(self) -> Iterable[Problem]:
        """Refusals."""
        return self._found.problem()


class CopiedCheck:
    """Finds answers that say what was asked."""

    name = "copied-answers"

    def __init__(self) -> None:
        self._found = Gathered(COPIED)

    def see(self, rows: Sequence[Seen]) -> None:
        """Compare each answer with the message before it."""
        for row in rows:
            if row.is_written and len(row.answer) > 2 and _is_copy(row):
                self._found.add(row, row.answer, "is the question")

    def problems(self) -> Iterable[Problem]:
        """Copied answers."""
        return self._found.problem()


def _is_copy(row: Seen) -> bool:
    """Whether the answer is the last message, or the last thing that somebody asked."""
    prompt = row.example.prompt
    asked = [*prompt[-1:], *[message for message in prompt if message.role == "user"][-1:]]
    return any(
        len(message.content) < 2 * len(row.answer) and folded(message.content) == folded(row.answer)
        for message in asked
    )


class CutOffCheck:
    """Finds answers that end in the middle of a sentence, where others do not."""

    name = "cut-off-answers"

    def __init__(self) -> None:
        self._sure, self._likely = Gathered(CUT), Gathered(CUT)
        self._num_long = self._num_ended = 0

    def see(self, rows: Sequence[Seen]) -> None:
        """Look at the ends of answers."""
        for row in rows:
            said = row.answer.rstrip()
            if not row.is_written or len(said) < LONG:
                continue
            self._num_long += 1
            if not said[-1].isalnum() and (said[-1] not in OPEN_ENDS or said.endswith("--")):
                self._num_ended += 1
            elif SURELY_UNFINISHED.search(said[-12:]):
                self._sure.add(row, said, _last_word(said), around=len(said))
            elif not LISTED.match(said[said.rfind("\n") + 1 :]):
                self._likely.add(row, said, _last_word(said), around=len(said))

    def problems(self) -> Iterable[Problem]:
        """Those that surely are cut; where nearly all others end in a mark, all that do not."""
        is_usual = self._num_long >= LEAST and self._num_ended >= USUAL * self._num_long
        found = Gathered(CUT)
        for some in (self._sure, self._likely) if is_usual else (self._sure,):
            found.positions.extend(some.positions.array)
            found.cases += some.cases
        found.cases.sort(key=lambda case: case.position)
        return found.problem()


def _last_word(text: str) -> str:
    return f"ends in {mask(text.split()[-1])[-20:]!r}"


class JsonCheck:
    """Finds answers that are no JSON where most are."""

    name = "broken-json-answers"

    def __init__(self) -> None:
        self._broken = Gathered(BROKEN_JSON)
        self._num_seen = self._num_json = 0

    def see(self, rows: Sequence[Seen]) -> None:
        """Try to read each answer."""
        for row in rows:
            if not row.is_written or row.example.target.tool_calls:
                continue
            self._num_seen += 1
            said = _json_error(row.answer)
            if not said:
                self._num_json += 1
            elif self._num_seen < 1000 or self._num_json > self._num_seen / 4:
                self._broken.add(row, row.answer, said)

    def problems(self) -> Iterable[Problem]:
        """Answers that are none, if most are."""
        if self._num_seen >= LEAST and self._num_json >= USUAL * self._num_seen:
            yield from self._broken.problem()


def _json_error(text: str) -> str:
    """What keeps a text from being a JSON object or list."""
    if not text.lstrip().startswith(("{", "[")):
        return "is no object and no list"
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is broken JSON: {error}"
    return ""


class MarkupCheck:
    """Finds code blocks and tags that are opened and not closed."""

    name = "broken-markup"

    def __init__(self) -> None:
        self._found = Gathered(BROKEN_MARKUP)
        self._closed, self._open = Counter[str](), Counter[str]()
        self._of_tags: list[tuple[Seen, str]] = []

    def see(self, rows: Sequence[Seen]) -> None:
        """Count what is opened and closed."""
        for row in rows:
            said = row.answer
            if not row.is_written:
                continue
            if "```" in said and sum(map(_opens_or_closes, said.split("\n"))) % 2:
                self._found.add(row, said, "an odd number of ```")
            if "<" in said:
                self._see_tags(row, said)

    def _see_tags(self, row: Seen, said: str) -> None:
        depth = Counter[str]()
        for closing, tag, alone in TAG.findall(said):
            if not alone and tag.lower() not in VOID:
                depth[tag] += -1 if closing else 1
        for tag, level in depth.items():
            (self._open if level else self._closed)[tag] += 1
            if level and len(self._of_tags) < 10_000:
                self._of_tags.append((row, tag))

    def problems(self) -> Iterable[Problem]:
        """Open blocks, and open tags of names that others close."""
        known = set(self._found.positions.array.tolist())
        for row, tag in self._of_tags:
            # <name> may be a placeholder; where others close it, it is a tag.
            if self._closed[tag] >= max(3, 4 * self._open[tag]) and row.position not in known:
                known.add(row.position)
                self._found.add(row, row.answer, f"<{tag}> and </{tag}> do not match")
        return self._found.problem()


def _opens_or_closes(line: str) -> bool:
    """Whether a line begins or ends a code block; one may also stand in a single line."""
    return line.lstrip().startswith("```") and line.count("```") % 2 == 1


def _without_patterns(schema: Any) -> Any:
    """The schema without regular expressions: a dataset's may take for ever."""
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if k not in ("pattern", "patternProperties")}
        return {key: _without_patterns(value) for key, value in kept.items()}
    return [_without_patterns(item) for item in schema] if isinstance(schema, list) else schema


class ToolCallCheck:
    """Finds calls of tools that are not defined, or with arguments against their schema."""

    name = "broken-tool-calls"

    def __init__(self) -> None:
        self._found = Gathered(BROKEN_CALLS)
        self._validators: dict[str, Any] = {}

    def see(self, rows: Sequence[Seen]) -> None:
        """Validate each call of each message."""
        for row in rows:
            messages = (*row.example.prompt, row.example.target)
            calls = [call for message in messages for call in message.tool_calls]
            if not calls:
                continue
            wrong = [said for call in calls if (said := self._wrong(row, call))]
            if wrong:
                self._found.add(row, row.answer, "; ".join(wrong))

    def _wrong(self, row: Seen, call: Any) -> str:
        defined = [tool.get("function", tool) for tool in row.example.tools]
        tools = {str(one.get("name")): one for one in defined if isinstance(one, dict)}
        if call.name not in tools:
            return f"calls {call.name}, which is not among its tools"
        schema = tools[call.name].get("parameters")
        return self._against(_without_patterns(schema), call) if isinstance(schema, dict) else ""

    def _against(self, schema: dict[str, Any], call: Any) -> str:
        import jsonschema
        from jsonschema.exceptions import UnknownType
        from referencing import Registry
        from referencing.exceptions import Unresolvable

        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators and len(self._validators) < 1000:
            # No reference is fetched from elsewhere.
            self._validators[key] = jsonschema.Draft202012Validator(schema, registry=Registry())
        validator = self._validators.get(key)
        if validator is None:
            validator = jsonschema.Draft202012Validator(schema, registry=Registry())
        try:
            error = next(iter(validator.iter_errors(json.loads(call.arguments))), None)
        except (jsonschema.SchemaError, UnknownType, Unresolvable, re.error, ArithmeticError,
                AttributeError, ValueError, TypeError, RecursionError):  # fmt: skip
            return f"the schema of {call.name} cannot be read"
        where = f" at {'.'.join(map(str, error.absolute_path))}" if error and error.path else ""
        return f"{call.name}{where}: {mask(error.message)[:120]}" if error else ""

    def problems(self) -> Iterable[Problem]:
        """Broken calls."""
        return self._found.problem()
