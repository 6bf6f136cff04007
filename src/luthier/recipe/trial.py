"""What is set against each other: systems, each a model with a prompt, on the same rows.

The first system is the one in question; the others are what it is held against.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from luthier.recipe.judging import Judging
from luthier.recipe.schema import Runtime
from luthier.recipe.section import Section


class System(Section):
    """One way of answering."""

    model: str = Field(min_length=1)
    """Model as in a recipe, run:RUN, http://HOST/PATH#MODEL, or a file of recorded answers."""
    name: str = Field(default="", max_length=80)
    """Name in tables; empty makes one of the rest."""
    instructions: str = ""
    """What the model is told instead of the rows' own instructions."""
    shots: int = Field(default=0, ge=0)
    """Training examples put before the question."""
    pick: Literal["random", "nearest"] = "random"
    """The same examples for all rows, or those whose questions are nearest to each row's."""
    documents: Path | None = None
    """Folder of texts (.txt, .md) in which passages for each question are looked up."""
    passages: int = Field(default=3, ge=1)
    """Passages put before a question, where there are documents."""
    input_price: float = Field(default=0.0, ge=0)
    """Price of a million tokens that it is asked with, in any currency; for the cost metric."""
    output_price: float = Field(default=0.0, ge=0)
    """Price of a million tokens that it answers."""


class Trial(Section):
    """Systems on the same rows."""

    data: Path
    """File of rows to answer, or a dataset's version with held-out rows."""
    train: Path | None = None
    """File of rows that examples are taken from."""
    systems: tuple[System, ...] = Field(min_length=1)
    """The system in question, and those it is held against."""
    evaluation: Judging = Judging()
    runtime: Runtime = Runtime()
    samples: int = Field(default=1, ge=1, le=1000)
    """Answers to each row; scores are means over them, and pass@k and how often they differ come
    besides."""
    temperature: float = Field(default=0.0, ge=0, le=10)
    """At which answers are drawn; 0 takes the likeliest token every time."""
    seed: int = 0
    """Of the choice of examples, of drawn answers, and of resampling."""
    overlap: Literal["refuse", "report"] = "refuse"
    """What to do when rows ask what training rows ask: nothing is judged, or the report says so."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Trial":
        if self.train is None and not str(self.data).startswith("dataset:"):
            for system in self.systems:
                if system.shots:
                    raise ValueError("examples are asked for, and train names no rows to take")
        if self.samples > 1 and not self.temperature:
            raise ValueError("several samples are asked for, and at temperature 0 all are the same")
        return self
