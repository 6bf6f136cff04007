"""luthier data browse: rows in the terminal, page by page, with a search and what was found."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.panel import Panel
from rich.text import Text

from luthier.cli.data import Reference
from luthier.cli.options import DEFAULT_WORKSPACE, WorkspaceFolder
from luthier.cli.screen import console
from luthier.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from luthier.curation import Problem
    from luthier.runs import Content, KeptRow, Version

PAGE = 5
LONGEST = 1200
"""Characters of a value that are shown."""
HELP = (
    "enter or n: next page   p: page before   NUMBER: go to that row   /WORDS: rows with them   "
    "w EXPRESSION: rows of which it is true   f: next problem that was found   a: all rows   q: end"
)


def browse(reference: Reference, workspace: WorkspaceFolder = DEFAULT_WORKSPACE) -> None:
    """Page through the rows of a version: search, filter, and go from problem to problem."""
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    version = datasets.find(reference)
    out = console()
    browser = Browser(version, datasets.content(version), out)
    out.print(HELP)
    browser.show()
    while True:
        try:
            said = out.input(f"{version.reference} {browser.where} > ").strip()
        except EOFError:
            return
        if said == "q":
            return
        try:
            browser.follow(said)
        except ConfigError as error:
            out.print(f"error: {error}")


class Browser:
    """Which rows are shown, and where among them somebody is."""

    def __init__(self, version: "Version", content: "Content", out: "Console") -> None:
        self._version, self._content, self._out = version, content, out
        self._positions: range | list[int] = range(version.num_rows)
        self._at = 0
        self._words = ""
        self._problems: list[Problem] | None = None
        self._problem = -1

    @property
    def where(self) -> str:
        """Where somebody is, in words."""
        total = len(self._positions)
        last = min(self._at + PAGE, total)
        return f"{self._at + 1 if total else 0:,}-{last:,} of {total:,}"

    def follow(self, said: str) -> None:
        """Do as is said. Raises ConfigError for an expression that is none."""
        if said in ("", "n"):
            self._at = min(self._at + PAGE, max(0, len(self._positions) - 1) // PAGE * PAGE)
        elif said == "p":
            self._at = max(0, self._at - PAGE)
        elif said.isdecimal():
            self._go_to(int(said))
        elif said.startswith("/"):
            self._narrow(self._with_words(said[1:]), said[1:])
        elif said.startswith("w "):
            self._narrow(self._true(said[2:]), "")
        elif said == "f":
            self._next_problem()
        elif said == "a":
            self._narrow(range(self._version.num_rows), "")
        else:
            self._out.print(HELP)
            return
        self.show()

    def show(self) -> None:
        """Print the rows of this page."""
        if not self._positions:
            self._out.print("no row")
        chosen = self._positions[self._at : self._at + PAGE]
        for row in self._content.some(chosen):
            self._out.print(Panel(self._shown(row), title=self._titled(row), title_align="left"))

    def _titled(self, row: "KeptRow") -> str:
        split = f" {row.split}" if row.split else ""
        return f"{row.position:,}{split}  {row.id[:8]}  {row.origin}"

    def _shown(self, row: "KeptRow") -> Text:
        from luthier.report import visible

        text = Text()
        for name, value in _lines(row.fields):
            text.append(f"{name}  ", style="bold")
            # What a terminal would take for orders is shown, not followed.
            text.append(f"{visible(value[:LONGEST])}{'...' if len(value) > LONGEST else ''}\n")
        if self._words:
            text.highlight_words([self._words], style="reverse", case_sensitive=False)
        text.rstrip()
        return text

    def _go_to(self, number: int) -> None:
        if not 1 <= number <= self._version.num_rows:
            raise ConfigError(
                f"is {number}", where="row", accepted=f"1 to {self._version.num_rows}"
            )
        self._narrow(range(self._version.num_rows), "")
        self._at = number - 1

    def _narrow(self, positions: "range | list[int]", words: str) -> None:
        self._positions, self._at, self._words = positions, 0, words

    def _with_words(self, words: str) -> list[int]:
        wanted = words.casefold()
        return [
            row.position - 1
            for row in self._content.rows()
            if any(wanted in value.casefold() for _, value in _lines(row.fields))
        ]

    def _true(self, expression: str) -> list[int]:
        from luthier.curation import rows_where

        return [row.position - 1 for row in rows_where(self._content, expression)]

    def _next_problem(self) -> None:
        from luthier.curation import VersionSource, check_rows

        if self._problems is None:
            self._out.print("looking for problems ...")
            found = check_rows(VersionSource(self._content, self._version.reference)).problems
            self._problems = [problem for problem in found if problem.positions.tolist()]
        known = [p for p in self._problems if (p.positions >= 0).all()]
        if not known:
            self._out.print("nothing was found")
            return
        self._problem = (self._problem + 1) % len(known)
        problem = known[self._problem]
        self._out.print(f"{problem.severity}: {problem.title}  [{problem.name}]")
        self._out.print(f"   {problem.why}")
        self._narrow(problem.positions.tolist(), "")


def _lines(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values as people read them: messages by who said them."""
    for name, value in fields.items():
        if name == "messages" and isinstance(value, list):
            for message in islice(value, 50):
                role = message.get("role", "") if isinstance(message, dict) else ""
                content = message.get("content") if isinstance(message, dict) else message
                yield str(role), content if isinstance(content, str) else _as_json(message)
        else:
            yield name, value if isinstance(value, str) else _as_json(value)


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
