"""The reference pages are made from the schema and the command line, and hold nothing else."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import typer
from pydantic import BaseModel

from luthier.cli import app
from luthier.recipe import RULES, Recipe, arms, field_names, kind_of

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Generated from the source by tests/test_docs.py; change it there. -->\n"
RECIPE = """# The recipe

Everything a run may be told, in YAML, on the command line (`--set training.epochs=2`) and in Python
(`luthier.tune(training={"epochs": 2})`) alike. Only `model` and `data` are required, and either may
be just its first field: `model: owner/name`, `data: rows.jsonl`. A field that takes `auto` is
decided by a rule from the data, the model and the machine; `luthier recipe show recipe.yaml` prints
each decision with its reason. `name` names the run; without one, the file of training rows does.
"""
COMMANDS = """# The commands

Exit codes: 0 done; 1 `luthier doctor` found a problem; 2 something is wrong with what was given,
and the message says what to do; 130 interrupted.
"""


def told(kind: Any) -> str:
    """A type as a reader of YAML sees it."""
    names = {str: "text", int: "whole number", float: "number", Path: "path", type(None): "null"}
    if kind in names:
        return names[kind]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"`{kind.model_fields['type'].default}`"
    if get_origin(kind) is Annotated:
        return told(get_args(kind)[0])
    if str(get_origin(kind)) == "typing.Literal":
        return " or ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {told(get_args(kind)[0]).replace(' or ', ', ')}"
    if get_origin(kind) is dict:
        return "mapping of names to numbers"
    return " or ".join(told(part) for part in get_args(kind))


def limits(metadata: list[Any]) -> str:
    """Limits of a number, such as ", at least 1"."""
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    found = [(w, getattr(m, k)) for m in metadata for k, w in words.items() if hasattr(m, k)]
    return "".join(f", {word} {value}" for word, value in found)


def default(value: Any) -> str:
    """A default as YAML has it."""
    if isinstance(value, tuple):
        return f"`[{', '.join(str(v) for v in value)}]`"
    return {None: "none", "": "empty"}.get(value, f"`{value}`")


def sections(recipe: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """One table a section of the recipe, those within it after it."""
    for name, kind in (
        (f"{prefix}{n}", arm) for n, f in recipe.model_fields.items() for arm in arms(f.annotation)
    ):
        title = f"{name}: {kind_of(kind)}" if kind_of(kind) else name
        yield f"\n## {title}\n\n{kind.__doc__}\n\n| Field | Takes | Default | |\n"
        yield "|---|---|---|---|\n"
        for leaf, content in kind.model_fields.items():
            if arms(content.annotation):
                continue
            takes = told(content.annotation).replace("|", "\\|") + limits(content.metadata)
            start = "required" if content.is_required() else default(content.default)
            ruled = f"{name}.{leaf}" in RULES and content.default == "auto"
            about = " ".join((content.description or "").split())
            about += " Decided by a rule." if ruled else ""
            yield f"| `{leaf}` | {takes} | {start} | {about} |\n"
        yield from sections(kind, f"{name}.")


def recipe_page() -> str:
    return NOTE + RECIPE + "".join(sections(Recipe))


def commands(command: Any, path: str) -> Iterator[str]:
    """One section a command, with its arguments and options."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")
        return
    about = re.sub(r"[ \t]*\n[ \t]*", "\n", (command.help or "").strip())
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
    yield f"\n## {' '.join([path, *usage])}\n\n{about}\n\n"
    for parameter in command.params:
        if parameter.name != "help":
            shown = parameter.name.upper() if parameter in arguments else ", ".join(parameter.opts)
            start = (
                ""
                if parameter.default in (None, False, "", [], ()) or parameter in arguments
                else (f" (default: `{parameter.default}`)")
            )
            yield f"- `{shown}`: {parameter.help}{start}\n"


def commands_page() -> str:
    return NOTE + COMMANDS + "".join(commands(typer.main.get_command(app), "luthier"))


@pytest.mark.parametrize(("name", "make"), [("recipe", recipe_page), ("commands", commands_page)])
def test_the_reference_says_what_the_source_says(
    name: str, make: Any, request: pytest.FixtureRequest
) -> None:
    path, text = ROOT / "docs" / f"{name}.md", make()
    if request.config.getoption("--regenerate-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    changes = difflib.unified_diff(found.splitlines(), text.splitlines(), lineterm="")
    assert found == text, "\n".join(("write it anew with --regenerate-golden:", *changes))


def test_every_command_and_field_that_the_readme_names_exists() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    known = set(field_names())
    for field in re.findall(r"--set ([a-z_.]+)=", readme):
        assert field in known
    group: Any = typer.main.get_command(app)
    names = set(group.commands)
    for name in re.findall(r"^luthier ([a-z]+)", readme, re.MULTILINE):
        assert name in names
