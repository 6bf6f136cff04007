"""Text becomes a recipe: YAML, `--set` and keyword arguments, with the origin of every value.

All problems are reported at once, in plain words, with the line they stand on and the closest known
name. Paths in a file are relative to that file; paths in overrides to the working directory.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from luthier.errors import ConfigError
from luthier.recipe.fields import field_names, leaves
from luthier.recipe.schema import DATASET, Recipe
from luthier.recipe.trial import Trial

FILE_PATHS = (
    "data.train", "data.validation", "data.test", "data.corpus", "data.queries",
    "data.judgements", "model.chat_template", "evaluation.documents",
    "evaluation.general",
)  # fmt: skip
NO_FILES = ("built-in", "none")
"""What stands where a path could stand."""
SHORTHANDS = {
    "model": "model.source",
    "data": "data.train",
    "method": "method.kind",
    "tuning": "tuning.kind",
}
GRADERS = "graders"
GRADER_TYPES = (
    "string_check", "text_similarity", "python", "function", "classifier", "score_model",
    "label_model", "multi",
)  # fmt: skip
CHOICES = ("method", "tuning")
"""Sections of which there are several kinds."""
UNHASHED = ("name", "runtime.workspace", "runtime.cache", "runtime.threads", "runtime.loggers")
"""What changes neither weights nor evaluation beyond where and how fast they are made."""

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ReadRecipe:
    """A recipe as given, and where each given value comes from, by dotted path."""

    recipe: Recipe
    origins: dict[str, str]
    text: str
    """The file's text, or the recipe as YAML when there was no file."""


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> ReadRecipe:
    """Read a recipe file and apply `section.field=value` overrides.

    Raises ConfigError listing everything wrong with both.
    """
    text = _read_text(path)
    content, lines = _parse_yaml(path, text)
    _make_relative(content, path.parent)
    origins = {name: f"{path}:{line}" for name, line in lines.items()}
    for override in overrides:
        name, value = _parse_override(override)
        _put(content, name, value)
        origins[SHORTHANDS.get(name, name)] = f"--set {override}"
    return ReadRecipe(_validate(content, origins, str(path), Recipe), origins, text)


def read_trial(path: Path, overrides: Sequence[str] = ()) -> Trial:
    """Read a file of systems, as `read_recipe` does a recipe. Raises ConfigError."""
    content, lines = _parse_yaml(path, _read_text(path))
    for name in ("data", "train"):
        if isinstance(content.get(name), str) and not content[name].startswith(DATASET):
            content[name] = str(path.parent / Path(content[name]).expanduser())
    systems = content.get("systems")
    for system in systems if isinstance(systems, list) else ():
        if isinstance(system, dict):
            _make_system_relative(system, path.parent)
    origins = {name: f"{path}:{line}" for name, line in lines.items()}
    return _overridden(content, origins, overrides, str(path))


def trial_from(content: Mapping[str, Any], overrides: Sequence[str] = ()) -> Trial:
    """Systems from nested mappings, as callers give them. Raises ConfigError."""
    plain = json.loads(json.dumps(content, default=_plain))
    return _overridden(plain, {}, overrides, "evaluate")


def _overridden(
    content: dict[str, Any], origins: dict[str, str], overrides: Sequence[str], whole: str
) -> Trial:
    for override in overrides:
        name, value = _parse_override(override)
        _put(content, name, value)
        origins[name] = f"--set {override}"
    return _validate(content, origins, whole, Trial)


def _make_system_relative(system: dict[str, Any], folder: Path) -> None:
    if isinstance(system.get("documents"), str):
        system["documents"] = str(folder / Path(system["documents"]).expanduser())
    model = system.get("model")
    if isinstance(model, str) and (folder / Path(model).expanduser()).exists():
        system["model"] = str(folder / Path(model).expanduser())


def recipe_from(content: Mapping[str, Any]) -> ReadRecipe:
    """A recipe from nested mappings, as Python callers give it. Raises ConfigError."""
    plain = json.loads(json.dumps(content, default=_plain))
    origins = dict.fromkeys(_leaf_names(plain), "Python")
    recipe = _validate(plain, origins, "recipe", Recipe)
    return ReadRecipe(recipe, origins, to_yaml(recipe))


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, values that are defaults left out; `read_recipe` gives it back."""
    content = recipe.model_dump(mode="json", exclude_defaults=True)
    for name in CHOICES:
        if name in content:
            content[name] = {"kind": getattr(recipe, name).kind, **content[name]}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Dotted path -> value of every field."""
    return dict(_leaves(recipe.model_dump(mode="json"), ""))


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 over every value that can change weights or evaluation (see UNHASHED)."""
    values = {name: value for name, value in flatten(recipe).items() if name not in UNHASHED}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _leaves(content: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _leaf_names(content: Mapping[str, Any]) -> list[str]:
    return [SHORTHANDS.get(name, name) for name, _ in _leaves(content, "")]


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise ConfigError("is a folder", where=str(path), accepted="a recipe file in YAML")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError("does not exist", where=str(path), accepted="a recipe file") from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=str(path), accepted="YAML in UTF-8") from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not text.strip():
        raise ConfigError("is empty", where=str(path), accepted="at least a model and data")
    return text


def _parse_yaml(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Content of the file, and the line of each key by dotted path."""
    lines: dict[str, int] = {}
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"is no valid YAML: {error.problem}", where=where) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"is no valid YAML: {error}", where=str(path)) from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(content, dict):
        raise ConfigError(
            "holds no settings", where=str(path), accepted="lines such as model: folder"
        )
    _note_lines(path, root, "", lines)
    return content, lines


def _note_lines(path: Path, node: yaml.MappingNode, prefix: str, lines: dict[str, int]) -> None:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name in lines:
            raise ConfigError(
                f"{name} is set twice", where=f"{path}:{key.start_mark.line + 1}",
                advice=f"remove it here or in line {lines[name]}",
            )  # fmt: skip
        lines[name] = key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            _note_lines(path, value, f"{name}.", lines)
        elif isinstance(value, yaml.SequenceNode):
            _note_lines_of_list(path, value, name, lines)
        elif name in SHORTHANDS:
            lines[SHORTHANDS[name]] = lines[name]


def _note_lines_of_list(
    path: Path, node: yaml.SequenceNode, name: str, lines: dict[str, int]
) -> None:
    for number, item in enumerate(node.value):
        lines[f"{name}.{number}"] = item.start_mark.line + 1
        if isinstance(item, yaml.MappingNode):
            _note_lines(path, item, f"{name}.{number}.", lines)


def _make_relative(content: dict[str, Any], folder: Path) -> None:
    """Make the paths of a file's content relative to the working directory."""
    for name in FILE_PATHS:
        value = _get(content, name)
        if isinstance(value, str) and not value.startswith(DATASET) and value not in NO_FILES:
            _put(content, name, str(folder / Path(value).expanduser()))
    source = _get(content, "model.source")
    # Only what is there is taken for a path: a Hub id looks like a relative folder.
    if isinstance(source, str) and not source.startswith("wheel:"):
        local = folder / Path(source).expanduser()
        if local.exists() or source.endswith(".gguf") or source.startswith(("./", "../")):
            _put(content, "model.source", str(local))


def _get(content: Mapping[str, Any], name: str) -> Any:
    section, field = name.split(".", 1)
    value = content.get(section)
    if isinstance(value, dict):
        return value.get(field)
    return value if SHORTHANDS.get(section) == name else None


def _put(content: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by dotted path; a shorthand such as `data: file` becomes its section first."""
    *sections, field = name.split(".")
    place = content
    for section in sections:
        inner = place.get(section)
        if not isinstance(inner, dict):
            shorthand = SHORTHANDS.get(section, "").rpartition(".")[2]
            inner = {shorthand: inner} if inner is not None and shorthand else {}
            place[section] = inner
        place = inner
    if not sections and name in SHORTHANDS and isinstance(content.get(name), dict):
        content[name][SHORTHANDS[name].rpartition(".")[2]] = value
    else:
        place[field] = value


def _parse_override(override: str) -> tuple[str, Any]:
    name, found, text = override.partition("=")
    if not found or not name.strip():
        raise ConfigError(
            "is not understood",
            where=f"--set {override}",
            accepted="section.field=value, such as training.epochs=2",
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("the value is no valid YAML", where=f"--set {override}") from error
    return name.strip(), value


def _validate(
    content: dict[str, Any], origins: Mapping[str, str], whole: str, schema: type[S]
) -> S:
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        fields = field_names(schema)
        lines = _merged([_explain(e, origins, whole, fields) for e in error.errors()])
        if len(lines) == 1:
            raise ConfigError(lines[0]) from None
        raise ConfigError(f"{len(lines)} settings are wrong", where=whole, details=lines) from None


def _merged(lines: Sequence[str]) -> list[str]:
    """The lines, those that differ only in what they accept as one ("a whole number, or auto")."""
    accepted: dict[str, list[str]] = {}
    for line in lines:
        head, found, tail = line.partition("; expected ")
        accepted.setdefault(head, [])
        if found and tail not in accepted[head]:
            accepted[head].append(tail)
    return [
        f"{head}; expected {', or '.join(tails)}" if tails else head
        for head, tails in accepted.items()
    ]


def _explain(error: Any, origins: Mapping[str, str], whole: str, fields: Sequence[str]) -> str:
    """One problem in words: where, which field, what was found, what is accepted."""
    place = ".".join(map(str, error["loc"]))
    parts = [part for part in error["loc"] if isinstance(part, str)]
    if not parts:  # two sections that do not go together
        return f"{whole}: {error['msg'].removeprefix('Value error, ')}"
    kind = ""
    if parts[0] in CHOICES and len(parts) > 1:
        kind = parts.pop(1)  # pydantic names the arm of a choice
    # pydantic appends the arm of a union; the field is what is known.
    name = ".".join(parts)
    if GRADERS in parts:
        return _explain_grader(error, origins, whole)
    while "." in name and name not in fields and error["type"] != "extra_forbidden":
        if any(field.startswith(f"{name}.") for field in fields):
            break
        name = name.rpartition(".")[0]
    where = origins.get(place) or origins.get(name) or origins.get(name.split(".")[0]) or whole
    if error["type"] == "extra_forbidden":
        return f"{where}: {_unknown(name, kind, fields)}"
    if error["type"] == "missing":
        return f"{where}: {name} is missing; add it"
    if error["type"] == "union_tag_invalid":
        where = origins.get(f"{name}.kind", where)
        found, expected = error["ctx"]["tag"], error["ctx"]["expected_tags"]
        return f"{where}: {name}.kind is {found!r}; expected {expected}"
    found = error["input"]
    return f"{where}: {name} is {found!r}; {_expected(error)}"


def _explain_grader(error: Any, origins: Mapping[str, str], whole: str) -> str:
    """A problem within a grader, whose fields are not those of a recipe."""
    # pydantic appends the type of the grader to its number.
    place = [part for part in error["loc"] if part not in GRADER_TYPES]
    names = [".".join(map(str, place[:n])) for n in range(len(place), 0, -1)]
    where = next((origins[name] for name in names if name in origins), whole)
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no setting {names[0]}"
    if error["type"] == "missing":
        return f"{where}: {names[0]} is missing; add it"
    if error["type"].startswith("union_tag"):
        return f"{where}: {names[0]}.type is not one of {', '.join(GRADER_TYPES)}"
    return f"{where}: {names[0]} is {error['input']!r}; {_expected(error)}"


def _unknown(name: str, kind: str, fields: Sequence[str]) -> str:
    """What to say of a setting that is not there, or not there for this kind."""
    if kind and name in fields:
        section = name.split(".")[0]
        owners = ", ".join(leaf.kind for leaf in leaves() if leaf.path == name)
        return f"{name} is no setting of {section}.kind {kind}; it belongs to {owners}"
    return f"there is no setting {name}{_did_you_mean(name, fields)}"


def _did_you_mean(name: str, fields: Sequence[str]) -> str:
    same_field = [field for field in fields if field.rpartition(".")[2] == name.rpartition(".")[2]]
    sections = sorted({field.split(".")[0] for field in fields})
    close = same_field or difflib.get_close_matches(name, [*fields, *sections], 1, 0.6)
    if not close:
        by_field = {field.rpartition(".")[2]: field for field in fields}
        near = difflib.get_close_matches(name.rpartition(".")[2], by_field, 1, 0.6)
        close = [by_field[near[0]]] if near else []
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sections)}"


def _expected(error: Any) -> str:
    context = error.get("ctx") or {}
    limits = {
        "greater_than": "gt",
        "greater_than_equal": "ge",
        "less_than": "lt",
        "less_than_equal": "le",
    }
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    if error["type"] in limits:
        key = limits[error["type"]]
        return f"expected a value {words[key]} {context[key]}"
    if error["type"] == "literal_error":
        return f"expected {context['expected']}"
    kinds = {
        "string_pattern_mismatch": "letters, digits, dots, hyphens and underscores only",
        "string_too_long": f"at most {context.get('max_length')} characters",
        "int": "a whole number", "float": "a number", "string": "text", "tuple": "a list",
        "path": "a path", "model": "a section", "bool": "true or false",
    }  # fmt: skip
    for kind, description in kinds.items():
        if error["type"].startswith(kind):
            return f"expected {description}"
    return str(error["msg"]).removeprefix("Value error, ")
