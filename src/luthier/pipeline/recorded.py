"""What a run's folder says of how it was made."""

import json
from typing import Any

from luthier.recipe import Recipe
from luthier.runs import Run


def resolved_recipe(run: Run) -> Recipe:
    """The recipe a run was made with, without "auto"; its workspace is where the run is now."""
    content: dict[str, Any] = {}
    for line in json.loads(run.path("recipe.resolved.json").read_text("utf-8")):
        *sections, field = line["path"].split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
        place[field] = line["value"]
    content["runtime"]["workspace"] = run.folder.parent.parent
    return Recipe.model_validate(content)
