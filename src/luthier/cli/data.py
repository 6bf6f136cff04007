"""luthier data: datasets as versions."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from luthier.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceFolder
from luthier.cli.screen import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from luthier.data import Split
    from luthier.runs import Content, Version

app = typer.Typer(help="Keep datasets as versions: add, compare, tag.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a dataset.")]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="NAME (the newest version), NAME@NUMBER, NAME@TAG or NAME@ and a SHA-256's beginning.",
    ),
]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="JSONL, JSON, CSV, Parquet, Arrow or .xlsx files, folders of such, addresses "
        "(https://, s3://, gs://) or Hub datasets (hf:ORG/NAME).",
    ),
]
SHOWN, WIDTH = 5, 100
"""Rows shown of each kind, and characters of each."""


@app.command("add")
def add(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@VERSION]",
            help="Name of a dataset; with a version, the rows are put after those of it.",
        ),
    ],
    files: Files,
    validation: Annotated[
        list[str],
        typer.Option("--validation", help="Source of rows that only choose the best step."),
    ] = [],  # noqa: B006
    test: Annotated[
        list[str], typer.Option("--test", help="Source of rows that are held out.")
    ] = [],  # noqa: B006
    columns: Annotated[
        list[str],
        typer.Option(
            "--map", metavar="FIELD=COLUMN", help="Call a column otherwise, as prompt=Question."
        ),
    ] = [],  # noqa: B006
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Make rows a version of a dataset; they are kept for ever as they are."""
    from luthier.curation import add_files
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    splits: dict[Split | None, list[str]] = {
        "train" if validation or test else None: files, "validation": validation, "test": test,
    }  # fmt: skip
    named, _, earlier = name.partition("@")
    version, is_new = add_files(
        datasets, named, splits,
        after=datasets.find(name) if earlier else None, columns=_mapped(columns),
    )  # fmt: skip
    said = "" if is_new else " holds exactly these rows already"
    console().print(f"{version.reference}{said}  {_described(version)}")


@app.command("list")
def list_datasets(workspace: WorkspaceFolder = DEFAULT_WORKSPACE, as_json: AsJson = False) -> None:
    """All datasets, with the newest version of each."""
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    newest = [datasets.log(name)[-1] for name in datasets.names()]
    if as_json:
        console().print(json.dumps([asdict(version) for version in newest], indent=1))
    elif not newest:
        console().print(f"No datasets in {workspace} yet; luthier data add NAME FILE makes one.")
    else:
        _print_versions(newest, datasets.tags)


@app.command("log")
def log(
    name: Name, workspace: WorkspaceFolder = DEFAULT_WORKSPACE, as_json: AsJson = False
) -> None:
    """All versions of a dataset, newest first, and how each was made."""
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    versions = datasets.log(name)[::-1]
    if as_json:
        console().print(json.dumps([asdict(version) for version in versions], indent=1))
    else:
        _print_versions(versions, datasets.tags)


@app.command("show")
def show(
    reference: Reference,
    row: Annotated[
        str, typer.Option("--row", metavar="ID", help="Print the row with this id only.")
    ] = "",
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """A version: how it was made, and its first rows; or one row by its id."""
    from luthier.errors import ConfigError
    from luthier.runs import Datasets

    datasets, out = Datasets(workspace), console()
    version = datasets.find(reference)
    content = datasets.content(version)
    if row:
        found = content.row(row)
        if found is None:
            raise ConfigError(f"has no single row {row!r}", where=version.reference)
        out.print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
        return
    for field, value in asdict(version).items():
        if value not in ("", {}, None):
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
            out.print(f"{field:12} {shown}")
    out.print(f"{'tags':12} {', '.join(datasets.tags(version)) or 'none'}")
    _print_rows(content, range(min(SHOWN, version.num_rows)), " ")


@app.command("diff")
def diff(
    before: Reference,
    after: Reference,
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Rows that were added, removed and edited from one version to another."""
    from luthier.curation import differ
    from luthier.runs import Datasets

    datasets, out = Datasets(workspace), console()
    old, new = (datasets.content(datasets.find(reference)) for reference in (before, after))
    found = differ(old, new)
    if as_json:
        ids = {
            "added": [row.id for row in new.some(found.added)],
            "removed": [row.id for row in old.some(found.removed)],
            "edited": [[old.at(first).id, new.at(second).id] for first, second in found.edited],
        }
        out.print(json.dumps(ids, indent=1))
        return
    counts = (len(found.added), len(found.removed), len(found.edited))
    out.print("{:,} rows added, {:,} removed, {:,} edited".format(*counts))
    _print_rows(new, found.added[:SHOWN], "+")
    _print_rows(old, found.removed[:SHOWN], "-")
    for first, second in found.edited[:SHOWN]:
        _print_rows(old, [first], "-")
        _print_rows(new, [second], "+")


@app.command("export")
def export(
    reference: Reference,
    place: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")],
    layout: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="LAYOUT",
            help="openai, azure, together, fireworks, vertex, bedrock, sharegpt or alpaca; "
            "without it, rows as they are.",
        ),
    ] = "",
    split: Annotated[
        str, typer.Option("--split", help="Rows of this split alone: train, validation or test.")
    ] = "",
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Write a version to a file, in the layout of a service and checked by its rules."""
    from luthier.curation import export_version
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    version = datasets.find(reference)
    number = export_version(version, datasets.content(version), place, layout=layout, split=split)
    console().print(f"{number:,} rows {place}")


@app.command("tag")
def tag(
    reference: Reference,
    name: Annotated[str, typer.Argument(metavar="TAG", help="What to call this version.")],
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE,
) -> None:
    """Let a tag mean a version."""
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    version = datasets.find(reference)
    datasets.tag(version, name)
    console().print(f"{version.name}@{name} is {version.reference}")


@app.command("delete")
def delete(reference: Reference, workspace: WorkspaceFolder = DEFAULT_WORKSPACE) -> None:
    """Forget a version that no run was tuned on and no other was made from."""
    from luthier.pipeline.datasets import runs_by_data
    from luthier.runs import Datasets

    datasets = Datasets(workspace)
    version = datasets.find(reference)
    datasets.delete(version, runs_by_data(workspace))
    console().print(f"{version.reference} is deleted")


def _mapped(columns: list[str]) -> dict[str, str]:
    """FIELD=COLUMN as new name -> old one."""
    from luthier.errors import ConfigError

    # Both may be written behind one --map.
    given = [pair for column in columns for pair in column.split(",")]
    for pair in given:
        if not all(pair.partition("=")):
            raise ConfigError(f"is {pair!r}", where="--map", accepted="FIELD=COLUMN")
    found: dict[str, str] = {}
    for new, _, old in (pair.partition("=") for pair in given):
        if new.strip() in found or old.strip() in found.values():
            accepted = "each field and each column once"
            raise ConfigError(f"names {new.strip()}={old.strip()} besides another", where="--map",
                              accepted=accepted)  # fmt: skip
        found[new.strip()] = old.strip()
    return found


def _print_versions(versions: "Sequence[Version]", tags: "Callable[[Version], list[str]]") -> None:
    table = Table("version", "rows", "SHA-256", "made by", "from", "at", "tags", box=None)
    for version in versions:
        table.add_row(
            version.reference, f"{version.num_rows:,}", version.sha256[:12], version.made_by,
            version.parent, version.created_at, ", ".join(tags(version)),
        )  # fmt: skip
    console().print(table)


def _described(version: "Version") -> str:
    parts = [f"{number:,} {split}" for split, number in version.splits.items()]
    if version.num_unparted:
        parts.append(f"{version.num_unparted:,} not parted yet, to learn from")
    said = f" ({', '.join(parts)})" if parts else ""
    return f"{version.num_rows:,} rows{said}, SHA-256 {version.sha256[:12]}"


def _print_rows(content: "Content", positions: "Iterable[int]", mark: str) -> None:
    for row in content.some(positions):
        text = json.dumps(row.fields, ensure_ascii=False)
        cut = text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
        console().print(f"{mark} {row.id[:8]} {row.origin}  {cut}")
