"""The house rules as tests: who may import whom, how large things may grow, what is never used.

Each message says why its rule exists. EXCEPTIONS may only shrink: one no longer needed fails.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "luthier"
FILES = sorted(path for path in SOURCE.rglob("*.py"))

# room: rooms below it that it may name
MAY_IMPORT = {
    "errors": "",
    "recipe": "errors",
    "data": "errors recipe",
    "tokens": "errors recipe data",
    "models": "errors recipe data tokens",
    "training": "errors recipe data tokens models",
    "evaluation": "errors recipe data",
    "review": "errors recipe data evaluation",
    "report": "errors recipe data evaluation review",
    "runs": "errors recipe data evaluation review report",
    "curation": "errors recipe data evaluation report runs",
    "export": "errors recipe data tokens models",
    "providers": "errors recipe data runs",
    "pipeline": "errors recipe data tokens models training evaluation review report runs curation "
    "export providers",
    "jobs": "errors recipe data evaluation report runs curation pipeline",
    "server": "errors recipe data tokens evaluation review report runs curation providers pipeline "
    "jobs",
    "web": "errors recipe data tokens evaluation review report runs curation providers pipeline "
    "jobs server",
    "cli": "errors recipe data tokens evaluation review report runs curation providers pipeline "
    "jobs server web",
    "__init__": "errors recipe pipeline evaluation data runs",
}
TORCH_ROOMS = {"models", "training", "export"}
HEAVY = {"torch", "transformers", "peft", "accelerate"}
BANNED_NAMES = {"utils", "util", "helpers", "common", "misc", "core", "base", "manager", "managers"}
MAX_LINES, MAX_FUNCTION, MAX_PARAMETERS, MAX_NESTING = 500, 60, 6, 3

EXCEPTIONS = {
    "src/luthier/cli/machine.py may not import models": "doctor reports on devices, its whole task",
    "src/luthier/cli/screen.py may not import training": "shows training events by their type",
    "src/luthier/jobs/telling.py may not import training": "tells training events by their type",
    "src/luthier/jobs/storage.py catches Exception": "each file system of fsspec has its errors",
    "src/luthier/models/attention.py flat_attention_forward has 8 parameters": "transformers' "
    "attention interface sets them",
    "src/luthier/curation/gathering.py catches Exception": "every file system of fsspec has errors "
    "of its own",
    "src/luthier/data/reading.py catches Exception": "a damaged workbook raises anything",
    "src/luthier/evaluation/sandbox_child.py calls exec": "runs programs, its whole task, where it "
    "has shut itself in",
    "src/luthier/server/protection.py catches Exception": "a bug of ours is logged, and answered "
    "in the protocol's form",
    "src/luthier/models/engine.py catches Exception": "whatever goes wrong, who waits is told, and "
    "the engine goes on",
    "src/luthier/tokens/tokenizer.py catches Exception": "the Rust library raises nothing narrower",
}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def trees() -> Iterator[tuple[str, str, ast.Module]]:
    for path in FILES:
        name = str(path.relative_to(SOURCE.parents[1]))
        yield name, room_of(path), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [alias.name for alias in node.names]
            is_root = node.module == "luthier"
            yield from ([f"luthier.{name}" for name in names] if is_root else [node.module])


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def nesting(node: ast.AST, depth: int = 0) -> int:
    """Deepest nesting of blocks; else-if counts as its if, a function inside starts anew."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        is_elif = isinstance(child, ast.If) and isinstance(node, ast.If) and child in node.orelse
        opens = isinstance(child, ast.If | ast.For | ast.While | ast.With | ast.Try) and not is_elif
        deepest = max(deepest, nesting(child, depth + opens))
    return deepest


def violations() -> dict[str, str]:
    """Every broken rule -> why the rule exists."""
    found: dict[str, str] = {}
    for name, room, tree in trees():
        found |= imports_upwards(name, room, tree) | too_large(name, tree) | never_used(name, tree)
    return found


def imports_upwards(name: str, room: str, tree: ast.Module) -> dict[str, str]:
    found = {}
    for target in imported(tree):
        parts = target.split(".")
        if parts[0] == "luthier" and len(parts) > 1 and parts[1] != room:
            if parts[1] not in MAY_IMPORT[room].split():
                why = "imports run one way, down the list, so that a room can be read alone"
                found[f"{name} may not import {parts[1]}"] = why
        elif parts[0] in HEAVY and room not in TORCH_ROOMS:
            why = "rooms without torch are tested in milliseconds and start at once"
            found[f"{name} may not import {parts[0]}"] = why
    return found


def too_large(name: str, tree: ast.Module) -> dict[str, str]:
    found = {}
    num_lines = len((SOURCE.parents[1] / name).read_text(encoding="utf-8").splitlines())
    if num_lines > MAX_LINES:
        found[f"{name} has {num_lines} lines"] = "a file is read in one sitting"
    for function in functions(tree):
        where = f"{name} {function.name}"
        length = (function.end_lineno or 0) - function.lineno + 1
        arguments = function.args.posonlyargs + function.args.args
        count = len([a for a in arguments if a.arg not in ("self", "cls", "ctx")])
        if length > MAX_FUNCTION:
            found[f"{where} has {length} lines"] = "a function fits a screen"
        if count > MAX_PARAMETERS:
            found[f"{where} has {count} parameters"] = "more belong into a section of the recipe"
        if nesting(function) > MAX_NESTING:
            found[f"{where} nests too deeply"] = "a reader can hold three conditions, not four"
    return found


def never_used(name: str, tree: ast.Module) -> dict[str, str]:
    found = {}
    if not ast.get_docstring(tree):
        found[f"{name} has no docstring"] = "it is the room's contract, and read first"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and "pipeline" not in name:
            caught = ast.unparse(node.type) if node.type else "Exception"
            if "Exception" in caught.replace("ArrowException", "").split():
                found[f"{name} catches Exception"] = "it would hide our own bugs"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("eval", "exec", "torch.load", "os.system", "pickle.load", "pickle.loads"):
                found[f"{name} calls {called}"] = "nothing from a file or a request may run"
            if any(k.arg == "shell" and ast.unparse(k.value) == "True" for k in node.keywords):
                found[f"{name} uses a shell"] = "nothing from a file or a request may reach a shell"
    return found


@pytest.fixture(scope="module")
def broken() -> dict[str, str]:
    return violations()


def test_the_rules_hold(broken: dict[str, str]) -> None:
    new = [f"{rule}: {why}" for rule, why in broken.items() if rule not in EXCEPTIONS]
    assert not new, "\n".join(new)


def test_the_list_of_exceptions_only_shrinks(broken: dict[str, str]) -> None:
    unneeded = [rule for rule in EXCEPTIONS if rule not in broken]
    assert not unneeded, f"remove from EXCEPTIONS: {unneeded}"


def test_names_say_what_a_module_holds() -> None:
    drawers = [path for path in FILES if path.stem in BANNED_NAMES]
    assert not drawers, f"a drawer collects what nobody looks for there: {drawers}"


def test_the_source_is_ascii() -> None:
    odd = [path for path in FILES if not path.read_text(encoding="utf-8").isascii()]
    assert not odd, f"look-alike characters hide in code: {odd}"


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path) for path in FILES}
    assert rooms <= MAY_IMPORT.keys(), f"add to MAY_IMPORT: {rooms - MAY_IMPORT.keys()}"
