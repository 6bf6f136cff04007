"""Every "auto" is decided once, here, from facts, with the reason in words.

`resolve` takes a recipe and what is known about data, model and machine, and gives a recipe
without a single "auto", and for each value where it comes from. A rule says why its number is so.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from luthier.errors import ConfigError
from luthier.recipe.schema import TEXT_METHODS, LoRA, Recipe
from luthier.recipe.section import settled

LEARNING_RATE_EXPONENTS = {"llama": 0.781, "qwen2": 0.0775, "qwen3": 0.0775}
"""Model type -> how fast the best LoRA learning rate falls with width (Tinker's shipped rule)."""
PIECE_TOKENS = 1024
"""Length of the pieces of a long text: enough context, little quadratic work."""
FULL_FACTOR = 0.1
"""Best learning rate of full fine-tuning against LoRA's (Schulman et al. 2025)."""
COMPILE_FROM = 1e17
"""Operations of a run from which compiling pays on a GPU: 60 seconds for 10 % of a run at 160
TFLOP/s, which is a guess."""
ENCODER_RATE = 3e-4
"""Learning rate of all weights of an encoder, at a width of 384; it falls with the width. MiniLM
had 93.1 % of 1,283 unseen intents right after five passes at 2e-4, 90.8 % at 5e-4; after three of
the five 90.3 % at 2e-4, 89.9 % at 5e-4, 86.2 % at 1e-3. Between the first two is what fits both."""
EMBED_DIVISOR = 6
"""Models made for vectors are moved less. The validation loss of a search (496 texts, one pass of
4,006 pairs) was 0.37 at 5e-5 and 0.52 at 5e-4; halfway 0.37 at 5e-5, 0.41 at 2e-5, 0.64 at 5e-4."""
ENCODER_WIDTH = 384
ENCODER_LORA_FACTOR = 10.0
"""MiniLM, five passes over 3,000 intents: validation loss 0.75 at 3e-3, 0.87 at 1e-3, 0.92 at 3e-4;
at 1e-2 it learns nothing. All weights: 0.65 at 3e-4."""
HEAD_RATE = 1e-2
"""On the same rows the validation loss is 1.04 at 3e-3 and at 1e-2, 1.12 at 3e-2, 1.24 at 1e-1."""
UNEVEN = 3.0
"""A class so many times as frequent as another makes classes uneven."""
FEW_ROWS = 64
"""Rows of each label up to which the body learns to tell texts apart before the head does."""
ACTIVATIONS = 2**31
"""Bytes of activations that any machine can spare."""
ENCODER_ACTIVATIONS = 104
"""Bytes an encoder keeps for the backward pass, per token, layer and dimension, in float32: 86 to
111 were measured, of texts of 16 to 256 tokens."""
METHOD_FACTORS = {"dpo": 0.1, "ipo": 0.1, "simpo": 0.1, "kto": 0.3, "orpo": 0.5}
"""Preference methods start from a model that can already do it and move it less.

SmolLM2-135M, LoRA, 40 steps of 8 pairs; probability that 96 held-out answers are preferred, and
the chosen answers' loss in nats per token; 0.50 and 3.78 at the start. At 0.1 dpo has 0.60 and
3.32, ipo 0.61 and 3.19, simpo 0.67 and 3.51. At 0.3 they prefer more, but what is chosen has become
less likely than it was: 0.69 and 4.09, 0.81 and 4.25, 0.90 and 4.68. orpo has 0.58 and 2.71 at 0.2,
0.61 and 2.59 at 0.5. kto's loss on 64 validation rows is 0.389 at 0.1, 0.348 at 0.3, 0.318 at 1,
the chosen answers' 3.51, 3.38 and 3.44."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at."""

    num_train: int
    num_validation: int
    train_tokens: int
    validation_tokens: int
    longest_row: int
    """Tokens of the longest training or validation row."""
    longest_answer: int
    """Tokens of the longest answer in the training rows."""
    supervised_tokens: int
    """Tokens of the training rows that carry loss."""
    num_good: int
    """Training answers marked good, where rows are marked; all of them where not."""
    adapter_size: int
    """Weights of a LoRA adapter of rank 1 on every linear layer."""
    narrowest_layer: int
    """Smaller side of the narrowest linear layer."""
    model_size: int
    """Weights of the model."""
    hidden_size: int
    model_type: str
    context_length: int | None
    suggested_metrics: tuple[str, ...]
    suggestion_reason: str
    has_cuda: bool
    has_fast_bfloat16: bool
    """Whether the device multiplies bfloat16 matrices faster than those of float32."""
    can_compile: bool
    """Whether there is what torch.compile needs."""
    num_cores: int
    cache: str
    """The user's cache folder."""
    label_kind: str = ""
    """single, multi or number, for rows with labels."""
    label_counts: tuple[int, ...] = ()
    """Training rows of each label."""
    num_layers: int = 0
    """Blocks of the model; 0 where its config does not say."""
    has_vectors: bool = False
    """Whether the model is a sentence-transformers folder."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A recipe without "auto", and the origin of each value by dotted path."""

    recipe: Recipe
    origins: dict[str, str]


Rule = Callable[[Recipe, Facts], tuple[Any, str]]


def _device(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    return ("cuda", "a GPU is there") if facts.has_cuda else ("cpu", "no GPU is there")


def _dtype(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    if facts.has_fast_bfloat16:
        return "bfloat16", "the device multiplies bfloat16 matrices 2 to 4 times as fast"
    return "float32", "the device multiplies float32 matrices at least as fast"


def _threads(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    return facts.num_cores, "one per core this process may use"


def _cache(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    return facts.cache, "the user's cache folder"


def _labels(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    return facts.label_kind or "single", "as the rows write them"


def _stages(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    if recipe.tuning.kind == "head":
        return "one", "the head alone learns"
    if getattr(recipe.method, "head", "") == "own":
        return "one", "the architecture's own head learns with the body"
    largest = max(facts.label_counts, default=0)
    is_single = getattr(recipe.method, "labels", "") == "single"
    if is_single and min(facts.label_counts, default=0) >= 2 and largest <= FEW_ROWS:
        return "two", f"at most {largest} rows a label: contrast teaches more than labels alone"
    return "one", f"more than {FEW_ROWS} rows of a label, or several labels a row"


def _head(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    if getattr(recipe.method, "labels", "") == "number":
        return "pooled", "it computes in float32, as exactly as numbers may ask"
    if facts.has_vectors or getattr(recipe.method, "stages", "") == "two":
        return "pooled", "the model was made for vectors of texts, which tell labels apart"
    return "own", "as transformers builds classifiers of this architecture"


def _balance(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    if facts.label_kind == "number" or not facts.label_counts:
        return "none", "numbers have no classes"
    rarest, largest = min(facts.label_counts), max(facts.label_counts)
    if largest > UNEVEN * rarest:
        return "weights", f"the largest class has {largest:,} rows, the smallest {rarest:,}"
    return "none", "classes are about as frequent as each other"


def _max_length(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    if recipe.method.kind == "pretrain":
        length = min(PIECE_TOKENS, facts.context_length or PIECE_TOKENS)
        return length, "longer texts are cut into pieces of this length, nothing is lost"
    fitting = math.ceil(facts.longest_row / 64) * 64
    if facts.context_length and fitting > facts.context_length:
        return facts.context_length, "the longest the model was made for"
    return max(64, fitting), f"the longest row has {facts.longest_row} tokens"


def _batch_size(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    if recipe.method.kind == "embed":
        return min(64, max(2, facts.num_train)), "the others of a batch are what is told apart"
    if recipe.method.kind == "classify":
        size = 32 if facts.num_train >= 1000 else 16
        return size, "1,000 rows or more" if size == 32 else "fewer than 1,000 rows"
    # LoRA loses quality above about 32 (Schulman et al. 2025); few rows need many small steps.
    if facts.num_train >= 1000:
        return 16, "1,000 rows or more; LoRA loses quality above about 32"
    return 8, "fewer than 1,000 rows: small batches give enough steps"


def _epochs(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    if recipe.method.kind in TEXT_METHODS:
        epochs = min(10, max(1, round(50_000 / facts.num_train)))
        return epochs, f"about 50,000 texts from {facts.num_train:,} rows, at most 10 passes"
    # About 3,000 examples seen; 4 passes at most, after which repeated rows teach little
    # (Muennighoff et al. 2023), and early stopping guards the rest.
    epochs = min(4, max(1, round(3000 / facts.num_train)))
    return epochs, f"about 3,000 examples from {facts.num_train:,} rows, at most 4 passes"


def _rank(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    # An adapter holds about 2 bits a weight and a token teaches about 1 (Schulman et al. 2025):
    # the smallest rank that could hold the data, from 16 (cheap) to 128.
    needed = facts.supervised_tokens / 2 / max(1, facts.adapter_size)
    rank = next((r for r in (16, 32, 64) if r >= needed), 128)
    if rank > facts.narrowest_layer:
        return facts.narrowest_layer, "no more than the narrowest layer can take"
    return rank, f"room for {facts.supervised_tokens:,} learnt tokens at 2 bits a weight"


def _good_weight(recipe: Recipe, facts: Facts) -> tuple[float, str]:
    num_bad = facts.num_train - facts.num_good
    if not facts.num_good or not num_bad:
        return 1.0, "all answers are marked alike"
    weight = float(f"{num_bad / facts.num_good:.3g}")
    return weight, f"{facts.num_good} good and {num_bad} bad answers count equally"


def _encoder_rate(recipe: Recipe, facts: Facts) -> tuple[float, str]:
    if recipe.tuning.kind == "head":
        return HEAD_RATE, "a head alone"
    rate = ENCODER_RATE * math.sqrt(ENCODER_WIDTH / facts.hidden_size)
    reason = f"{ENCODER_RATE:g} x sqrt({ENCODER_WIDTH} / {facts.hidden_size})"
    if recipe.method.kind == "embed" and facts.has_vectors:
        rate /= EMBED_DIVISOR
        reason += f", / {EMBED_DIVISOR} since the model was made for vectors"
    if isinstance(recipe.tuning, LoRA):
        rate *= ENCODER_LORA_FACTOR
        reason += f", x {ENCODER_LORA_FACTOR:g} for LoRA"
    return float(f"{rate:.2g}"), reason


def _learning_rate(recipe: Recipe, facts: Facts) -> tuple[float, str]:
    if recipe.method.kind in TEXT_METHODS:
        return _encoder_rate(recipe, facts)
    # lr = 5e-5 * 10 * (2000 / hidden) ** e for LoRA with alpha 32 (Tinker's rule after Schulman et
    # al. 2025); the update scales with alpha, so the rate scales with its inverse.
    rate, reason = 5e-4, "5e-4 for LoRA"
    exponent = LEARNING_RATE_EXPONENTS.get(facts.model_type)
    if exponent is None:
        reason += f" (the rule knows no {facts.model_type!r} models)"
    else:
        rate *= (2000 / facts.hidden_size) ** exponent
        reason = f"5e-4 x (2000 / {facts.hidden_size})^{exponent} for LoRA on {facts.model_type}"
    if isinstance(recipe.tuning, LoRA):
        rate *= 32 / recipe.tuning.alpha
        reason += ", x 32 / alpha"
    else:
        rate *= FULL_FACTOR
        reason += f", x {FULL_FACTOR:g} since the weights themselves learn"
    factor = METHOD_FACTORS.get(recipe.method.kind, 1.0)
    if factor != 1:
        rate *= factor
        reason += f", x {factor:g} for {recipe.method.kind}"
    return float(f"{rate:.2g}"), reason


def _micro_batch_tokens(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    if settled(recipe.runtime.device) == "cuda":
        return 16384, "fills a GPU; halve it when memory runs out"
    if recipe.method.kind in TEXT_METHODS and facts.num_layers:
        # Contrast over a step that is computed in parts looks at it twice.
        fitting = ACTIVATIONS // (ENCODER_ACTIVATIONS * facts.hidden_size * facts.num_layers)
        tokens = min(16384, max(2048, 2 ** int(math.log2(max(1, fitting)))))
        return tokens, "about 2 GiB of activations for a model of this size"
    return 2048, "about 2 GiB of activations for a small model"


def _compile(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    if settled(recipe.runtime.device) == "cpu":
        return "never", "on a CPU training was measured to gain nothing by it"
    if not facts.can_compile:
        return "never", "there is no Triton to compile with"
    # Forward and backward take about 6 operations a weight and token.
    tokens = facts.train_tokens * settled(recipe.training.epochs)
    if 6 * facts.model_size * tokens >= COMPILE_FROM:
        return "always", "the run is long enough to earn back a minute of compiling"
    return "never", "the run is too short to earn back a minute of compiling"


def num_steps(recipe: Recipe, num_train: int) -> int:
    """Optimizer steps of a resolved recipe over `num_train` rows."""
    training = recipe.training
    steps = math.ceil(num_train / settled(training.batch_size)) * settled(training.epochs)
    return steps if training.max_steps is None else min(steps, training.max_steps)


def _evaluate_every(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    steps = num_steps(recipe, facts.num_train)
    # A validation token costs a third of a trained one (no backward pass).
    trained = facts.train_tokens * steps * settled(recipe.training.batch_size) / facts.num_train
    affordable = 0.1 * trained * 3 / max(1, facts.validation_tokens)
    times = min(10, max(1, int(affordable)))
    return max(1, steps // times), f"{times} times, at most a tenth of the training's work"


def _patience(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    if recipe.method.kind in TEXT_METHODS:
        return 5, "half of ten measurements: what is learnt of texts often shows as the rate falls"
    return 3, "a third of ten measurements"


def _checkpoint_every(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    steps = num_steps(recipe, facts.num_train)
    return min(100, max(1, steps // 8)), "8 times in a run, and at least every 100 steps"


def _max_new_tokens(recipe: Recipe, facts: Facts) -> tuple[int, str]:
    if recipe.method.kind in TEXT_METHODS:
        return 1, "unused: nothing is written"
    room = max(16, math.ceil(1.25 * facts.longest_answer) + 4)
    return room, f"a quarter more than the longest training answer, {facts.longest_answer} tokens"


def _metrics(recipe: Recipe, facts: Facts) -> tuple[tuple[str, ...], str]:
    return facts.suggested_metrics, facts.suggestion_reason


def _primary(recipe: Recipe, facts: Facts) -> tuple[str, str]:
    if recipe.evaluation.graders:
        return recipe.evaluation.graders[0].name, "the first of the graders"
    return settled(recipe.evaluation.metrics)[0], "the first of the metrics"


RULES: dict[str, Rule] = {
    "runtime.device": _device,
    "runtime.dtype": _dtype,
    "runtime.threads": _threads,
    "runtime.cache": _cache,
    "tuning.rank": _rank,
    "method.good_weight": _good_weight,
    "method.labels": _labels,
    "method.stages": _stages,
    "method.head": _head,
    "method.balance": _balance,
    "training.max_length": _max_length,
    "training.batch_size": _batch_size,
    "training.epochs": _epochs,
    "training.learning_rate": _learning_rate,
    "training.micro_batch_tokens": _micro_batch_tokens,
    "runtime.compile": _compile,
    "training.evaluate_every": _evaluate_every,
    "training.checkpoint_every": _checkpoint_every,
    "training.patience": _patience,
    "evaluation.max_new_tokens": _max_new_tokens,
    "evaluation.metrics": _metrics,
    "evaluation.primary": _primary,
}
"""Dotted path of every field that accepts "auto" -> its rule, in the order they may build on."""


def resolve(recipe: Recipe, origins: Mapping[str, str], facts: Facts) -> Resolved:
    """Decide every "auto". Values given stay as they are, with the origin they had."""
    decided = dict(origins)
    for path, rule in RULES.items():
        section, field = path.split(".")
        if getattr(getattr(recipe, section), field, None) != "auto":
            continue
        value, reason = rule(recipe, facts)
        recipe = _with(recipe, section, field, value)
        decided[path] = f"auto: {reason}"
    return Resolved(recipe, decided)


def _with(recipe: Recipe, section: str, field: str, value: Any) -> Recipe:
    """The recipe with one value replaced, validated again; ConfigError where it does not fit."""
    content = recipe.model_dump()
    content[section][field] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise ConfigError(
            f"is {value} by these rows, and {said}", where=f"{section}.{field}"
        ) from None
