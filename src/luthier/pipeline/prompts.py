"""The ladder that tuning must beat: prompts with examples, with passages, with chosen instructions.

All are made from the training rows and what the recipe names; which instructions are the best is
decided on validation rows, so that the test rows stay what they are for.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from luthier.data import Chat, Example, limit_by_hash
from luthier.errors import ConfigError
from luthier.evaluation import (
    Metric,
    NearestShots,
    Passages,
    Prompt,
    WordSearch,
    choose_shots,
    question,
    solved_examples,
)
from luthier.pipeline.systems import read_passages
from luthier.recipe import Recipe
from luthier.runs import write_atomically

PASSAGES = 3
"""Put before a question, where there are documents."""
MOST_CHOSEN_BY = 50
"""Validation rows that instructions are tried on."""

Named = tuple[str, Prompt]


def ladder(recipe: Recipe, train: Sequence[Example]) -> list[Named]:
    """Prompts besides the row alone, by name: examples, nearest examples, passages."""
    evaluation = recipe.evaluation
    chosen = (choose_shots(train, wanted, recipe.training.seed) for wanted in evaluation.shots)
    # As many as there are, where there are fewer.
    by_number: dict[int, tuple[Chat, ...]] = {len(shots): shots for shots in chosen}
    found = [(_counted(n, "example"), Prompt(shots=shots)) for n, shots in by_number.items() if n]
    nearest = _nearest(recipe, train)
    if nearest is not None:
        name = _counted(nearest.count, "nearest example")
        found.append((name, Prompt(nearest=nearest)))
    if evaluation.documents is not None:
        texts = tuple(read_passages(evaluation.documents))
        count = min(PASSAGES, len(texts))
        prompt = Prompt(passages=Passages(texts, WordSearch(texts), count))
        found.append((_counted(count, "passage"), prompt))
    return found


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)} in the prompt"


def _nearest(recipe: Recipe, train: Sequence[Example]) -> NearestShots | None:
    solved = tuple(solved_examples(train))
    count = min(recipe.evaluation.nearest, len(solved))
    if not count:
        return None
    return NearestShots(solved, WordSearch([question(chat) for chat in solved]), count)


def tried_on(recipe: Recipe, validation: Sequence[Example]) -> list[Example]:
    """Rows that instructions are tried on; none where there are no instructions.

    Raises ConfigError where there are no validation rows.
    """
    if recipe.evaluation.instructions and not validation:
        raise ConfigError(
            "are chosen on validation rows, and there are none", where="evaluation.instructions",
            accepted="data.validation, or a data.validation_share above 0",
        )  # fmt: skip
    return limit_by_hash(validation, MOST_CHOSEN_BY) if recipe.evaluation.instructions else []


def best_instructions(
    recipe: Recipe,
    train: Sequence[Example],
    ask: Callable[[Prompt], float | None],
    place: Path,
    metric: Metric,
) -> Named | None:
    """The best of the recipe's instructions, alone or with the nearest examples; None without any.

    `ask` gives a prompt's score on the rows it is tried on. What was found is kept at `place`, and
    taken from there.
    """
    texts = recipe.evaluation.instructions
    if not texts:
        return None
    nearest = _nearest(recipe, train)
    prompts = [Prompt(instructions=text) for text in texts]
    prompts += [Prompt(instructions=text, nearest=nearest) for text in texts if nearest]
    if place.is_file():
        scores: list[float | None] = json.loads(place.read_text("utf-8"))["scores"]
    else:
        scores = [ask(prompt) for prompt in prompts]
        kept = {"metric": metric.name, "instructions": texts, "scores": scores}
        write_atomically(place, json.dumps(kept, indent=1))
    sign = 1 if metric.higher_is_better else -1
    known = [i for i, score in enumerate(scores) if score is not None]
    best = max(known, key=lambda i: sign * (scores[i] or 0.0), default=0)
    name = f"instructions {best % len(texts) + 1} of {len(texts)}, chosen on validation rows"
    if prompts[best].nearest:
        name = f"{name}, with {_counted(recipe.evaluation.nearest, 'nearest example')}"
    return name, prompts[best]
