"""Rows that a recipe names: files, or versions of the workspace's datasets."""

from collections import defaultdict
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from luthier.data import FILES, Place, Report, Row, Split
from luthier.evaluation import Item
from luthier.recipe import DATASET, Recipe
from luthier.runs import Datasets, Version, Workspace

DATA_PATHS = ("train", "validation", "test")


@dataclass(frozen=True)
class NamedRows:
    """Rows of files, and of datasets where a path says `dataset:NAME`."""

    datasets: Datasets

    def rows(self, path: Path, split: Split, report: Report) -> Iterator[Row]:
        """Of a version that is parted, those of the split; what stays in none is to learn from."""
        version = self._version(path)
        if version is None:
            return FILES.rows(path, split, report)
        return self._rows(version, split)

    def _rows(self, version: Version, split: Split) -> Iterator[Row]:
        for row in self.datasets.content(version).rows():
            if not version.splits or (row.split or "train") == split:
                yield Row(Place(version.reference, row.position), row.fields)

    def splits(self, path: Path) -> Container[str]:
        """Splits that the version keeps."""
        version = self._version(path)
        return version.splits if version else FILES.splits(path)

    def sha256(self, path: Path) -> str:
        """Of the version's rows, or of the file."""
        version = self._version(path)
        return version.sha256 if version else FILES.sha256(path)

    def _version(self, path: Path) -> Version | None:
        named = str(path)
        return self.datasets.find(named) if named.startswith(DATASET) else None


@dataclass
class Remembered:
    """Rows of another source, whose fields are remembered by their places, for graders."""

    source: NamedRows
    items: dict[str, Item] = field(default_factory=dict)

    def rows(self, path: Path, split: Split, report: Report) -> Iterator[Row]:
        """The rows of the source."""
        for row in self.source.rows(path, split, report):
            self.items[str(row.place)] = row.fields
            yield row

    def splits(self, path: Path) -> Container[str]:
        """As the source has them."""
        return self.source.splits(path)

    def sha256(self, path: Path) -> str:
        """Of the source's rows."""
        return self.source.sha256(path)


def named_rows(recipe: Recipe) -> NamedRows:
    """What the recipe's paths mean in its workspace."""
    return NamedRows(Datasets(recipe.runtime.workspace))


def exactly(recipe: Recipe) -> Recipe:
    """The recipe with the number of each version that it names by another word, or none."""
    datasets = Datasets(recipe.runtime.workspace)
    changes = {
        name: Path(f"{DATASET}{datasets.find(str(path)).reference}")
        for name in DATA_PATHS
        if str(path := getattr(recipe.data, name)).startswith(DATASET)
    }
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def runs_by_data(workspace: Path) -> dict[str, list[str]]:
    """SHA-256 of rows -> the runs that used them."""
    found: dict[str, list[str]] = defaultdict(list)
    opened = Workspace.open(workspace)
    for run in opened.list():
        for sha256 in run.record.data_files.values():
            found[sha256].append(run.id)
    opened.close()
    return found
