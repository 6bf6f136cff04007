"""What a run's folder says of how it was made."""

import json
from pathlib import Path
from typing import Any

from luthier.data import LabelSet
from luthier.evaluation import General, from_json
from luthier.recipe import Recipe
from luthier.runs import Run

GENERAL = ("evaluation", "general.json")
"""Place in a run's folder of how its general ability has changed."""
TOLD = "labels.json"
"""The labels a model was told that learnt to write them."""


def resolved_recipe(run: Run) -> Recipe:
    """The recipe a run was made with, without "auto"; its workspace is where the run is now."""
    return recipe_in(run.folder)


def recipe_in(folder: Path) -> Recipe:
    """The same, of the run in a folder."""
    content: dict[str, Any] = {}
    for line in json.loads((folder / "recipe.resolved.json").read_text("utf-8")):
        *sections, field = line["path"].split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[field] = line["value"]
    content["runtime"]["workspace"] = folder.parent.parent
    return Recipe.model_validate(content)


def general_of(run: Run) -> General | None:
    """How a run's general ability has changed; None where it has not asked."""
    place = run.path(*GENERAL)
    if not place.is_file():
        return None
    return from_json(place.read_text("utf-8"), General, where=str(place))


def labels_told(run: Run) -> LabelSet | None:
    """The labels a run's model was told; None where it learnt to write none."""
    place = run.path(TOLD)
    if not place.is_file():
        return None
    content = json.loads(place.read_text("utf-8"))
    return LabelSet(content["kind"], tuple(content["names"]), tuple(content["counts"]))
