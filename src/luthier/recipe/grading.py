"""Graders as OpenAI's fine-tuning and evals interfaces define them, accepted as they are.

Fields and their meaning are those of the interface (developers.openai.com/api/docs/guides/graders).
Texts may name fields of the row, {{item.FIELD}}, and of the answer, {{sample.output_text}}.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, field_validator

MAX_SOURCE = 256_000
"""Characters of a program that grades."""


class Graded(BaseModel):
    """What all graders share. Not a section: its fields are the interface's, not a recipe's."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=80)
    """Name of the score."""
    pass_threshold: float | None = None
    """Score from which on an answer passes; without one the score itself counts."""


class StringCheck(Graded):
    """1 when a text is (not), or holds, another."""

    type: Literal["string_check"] = "string_check"
    input: str
    reference: str
    operation: Literal["eq", "ne", "like", "ilike"]
    """Equal, not equal, contains, contains whatever the case."""


class TextSimilarity(Graded):
    """How alike two texts are, 0 to 1."""

    type: Literal["text_similarity"] = "text_similarity"
    input: str
    reference: str
    evaluation_metric: Literal[
        "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3",
        "rouge_4", "rouge_5", "rouge_l",
    ]  # fmt: skip


class PythonGrader(Graded):
    """A program with a function grade(sample, item), run in a sandbox."""

    type: Literal["python"] = "python"
    source: str = Field(max_length=MAX_SOURCE)
    image_tag: str = ""
    """Of the interface's own machines; means nothing here."""


class FunctionGrader(Graded):
    """A function of one's own, called as grade(sample, item) in this process."""

    type: Literal["function"] = "function"
    path: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """package.module:function, importable from where the command is given."""


class ClassifierGrader(Graded):
    """The probability that a classifier tuned here gives a text a label, such as a good one."""

    type: Literal["classifier"] = "classifier"
    run: str = Field(min_length=1)
    """A finished run of method classify."""
    label: str = Field(min_length=1)
    input: str = "{{sample.output_text}}"


class Part(BaseModel):
    """A text within a message."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["input_text", "output_text", "text"]
    text: str


class Turn(BaseModel):
    """A message to the model that grades."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["user", "assistant", "system", "developer"]
    content: str | Part | tuple[str | Part, ...]
    type: Literal["message"] = "message"

    @property
    def text(self) -> str:
        """All its texts, one after the other."""
        parts = self.content if isinstance(self.content, tuple) else (self.content,)
        return "\n".join(part if isinstance(part, str) else part.text for part in parts)


class SamplingParams(BaseModel):
    """How the model that grades is to answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float | None = None
    seed: int | None = None
    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: str | None = None


class ScoreModel(Graded):
    """A model gives a number."""

    type: Literal["score_model"] = "score_model"
    model: str = Field(min_length=1)
    """http://HOST/PATH#MODEL, or a name at evaluation.judge's address, else OpenAI's."""
    input: tuple[Turn, ...] = Field(min_length=1)
    range: tuple[float, float] = (0.0, 1.0)
    sampling_params: SamplingParams = SamplingParams()

    @field_validator("range")
    @classmethod
    def _is_a_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("range needs its lower end first")
        return value


class LabelModel(Graded):
    """A model chooses a label; some of them pass."""

    type: Literal["label_model"] = "label_model"
    model: str = Field(min_length=1)
    input: tuple[Turn, ...] = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)
    passing_labels: tuple[str, ...] = Field(min_length=1)
    sampling_params: SamplingParams = SamplingParams()

    @field_validator("passing_labels")
    @classmethod
    def _are_labels(cls, value: tuple[str, ...], info: Any) -> tuple[str, ...]:
        unknown = set(value) - set(info.data.get("labels", value))
        if unknown:
            raise ValueError(f"passing_labels names {sorted(unknown)}, which labels does not")
        return value


class Multi(Graded):
    """A formula over other graders' scores, each under its name."""

    type: Literal["multi"] = "multi"
    name: str = "multi"
    graders: dict[str, "SingleGrader"] = Field(min_length=1)
    calculate_output: str = Field(max_length=2000)
    """+ - * / ^, parentheses, min, max, abs, floor, ceil, exp, sqrt, log."""

    @field_validator("graders", mode="before")
    @classmethod
    def _have_names(cls, value: Any) -> Any:
        """A list is taken too: each grader under its own name."""
        if isinstance(value, list | tuple):
            return {
                str(g.get("name")) if isinstance(g, dict) else getattr(g, "name", ""): g
                for g in value
            }
        if isinstance(value, dict):  # within a formula the key is the name
            return {
                key: {"name": key, **given} if isinstance(given, dict) else given
                for key, given in value.items()
            }
        return value


SingleGrader = Annotated[
    StringCheck
    | TextSimilarity
    | PythonGrader
    | FunctionGrader
    | ClassifierGrader
    | ScoreModel
    | LabelModel,
    Discriminator("type"),
]
Grader = Annotated[
    StringCheck
    | TextSimilarity
    | PythonGrader
    | FunctionGrader
    | ClassifierGrader
    | ScoreModel
    | LabelModel
    | Multi,
    Discriminator("type"),
]
Multi.model_rebuild()
