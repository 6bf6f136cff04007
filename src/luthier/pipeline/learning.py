"""Training, as each of the processes that train together does it.

A prepared run and a loaded model come in, a trained model comes out. What the model at the start
thinks of every answer is computed here, where the method needs it, and kept for other runs.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from luthier.models import (
    LanguageModel,
    compiled_lean,
    gather,
    kl_to_start,
    make_trainable,
    peak_memory,
    shard,
)
from luthier.pipeline.encoding import AnySplit
from luthier.pipeline.preparing import Prepared
from luthier.pipeline.starting import continues_adapter, load_start
from luthier.recipe import LoRA, Recipe, recipe_hash, settled
from luthier.runs import write_atomically
from luthier.tokens import EncodedExample, EncodedSplit
from luthier.training import (
    NEEDS_REFERENCE,
    Measured,
    Outcome,
    Profiler,
    Ranks,
    Surroundings,
    TrainingEvent,
    build_objective,
    measure,
    reference_key,
    reference_logprobs,
    train,
    with_references,
)

KL_EXAMPLES = 32
"""Held-out examples on which the divergence from the start is measured."""


@dataclass(frozen=True)
class Circumstances:
    """Where and under whose eyes a training runs."""

    checkpoints: Path
    ranks: Ranks
    observe: Callable[[TrainingEvent], None] = lambda event: None
    is_interrupted: Callable[[], bool] = lambda: False
    resumed: Callable[[int], None] = lambda step: None
    referenced: Callable[[int, int], None] = lambda done, total: None
    """Told how many examples the model at the start has looked at, of how many."""
    profiler: Profiler | None = None


def learn(
    model: LanguageModel, prepared: Prepared, circumstances: Circumstances
) -> tuple[Outcome, LanguageModel]:
    """Train the model as the recipe says.

    Returns the model with the best weights, unless interrupted: whole on the first process.
    """
    recipe, ranks = prepared.recipe, circumstances.ranks
    budget = settled(recipe.training.micro_batch_tokens)
    make_trainable(model, recipe.tuning, recipe.training.seed)
    # Dropout draws anew for each sequence, so shared beginnings would change the result.
    drops = isinstance(recipe.tuning, LoRA) and recipe.tuning.dropout > 0
    objective = build_objective(recipe.method, share_prefixes=not drops)
    learnt, held_out = (
        _with_references(model, prepared, _written(split), ranks, circumstances.referenced)
        for split in (prepared.train, prepared.validation)
    )

    def check() -> Measured:
        measured = measure(model, objective, held_out, budget, ranks)
        if not _knows_its_start(model, recipe):
            return measured
        answers = [e.sequences[0] for e in held_out[:KL_EXAMPLES]]
        divergence = kl_to_start(model, answers, budget=budget)
        return replace(measured, watched={**measured.watched, "kl_to_start": divergence})

    surroundings = Surroundings(
        folder=circumstances.checkpoints,
        recipe_hash=recipe_hash(recipe),
        validate=check if held_out else None,
        observe=circumstances.observe,
        is_interrupted=circumstances.is_interrupted,
        memory=peak_memory,
        ranks=ranks,
        profiler=circumstances.profiler,
        resumed=circumstances.resumed,
    )
    compiled = compiled_lean(model) if recipe.runtime.compile == "always" else nullcontext()
    with compiled:
        if recipe.runtime.sharding == "fsdp":
            shard(model)  # once it is lean, which is probed with whole weights
        outcome = train(model, objective, learnt, recipe.training, surroundings)
    return outcome, _whole(model, prepared) if model.root is not None else model


def _written(split: AnySplit) -> tuple[EncodedExample, ...]:
    assert isinstance(split, EncodedSplit), "of what a model is to write"
    return split.encoded


def _knows_its_start(model: LanguageModel, recipe: Recipe) -> bool:
    """Whether a preference run's start is the model without its adapter."""
    begins_anew = isinstance(recipe.tuning, LoRA) and recipe.tuning.earlier == "merge"
    is_preference = recipe.method.kind not in ("sft", "pretrain")
    return begins_anew and is_preference and model.root is None


def _whole(model: LanguageModel, prepared: Prepared) -> LanguageModel:
    """A model that was spread over processes, as one again."""
    found = load_start(prepared.recipe, prepared.source)
    make_trainable(found, prepared.recipe.tuning, prepared.recipe.training.seed)
    gather(model, found)
    return found


def _with_references(
    model: LanguageModel,
    prepared: Prepared,
    examples: tuple[EncodedExample, ...],
    ranks: Ranks,
    told: Callable[[int, int], None],
) -> Sequence[EncodedExample]:
    """The examples with what the model at the start thinks of them, each rank computing a share."""
    recipe = prepared.recipe
    if recipe.method.kind not in NEEDS_REFERENCE or not examples:
        return examples
    quantized = recipe.tuning.quantize if isinstance(recipe.tuning, LoRA) else "none"
    # A merged adapter is rounded with the weights it is in, one that learns on is not.
    earlier = "continue" if continues_adapter(recipe, prepared.source) else "merge"
    made = f"{recipe.runtime.dtype} {quantized} {earlier} {model.device.type}"
    start = f"{prepared.source.sha256} {made}"
    key = reference_key(start, examples)
    kept = recipe.runtime.workspace / "references" / f"{key}.json"
    # The first rank looks, so that all do the same.
    said = ranks.tell(kept.read_text("utf-8") if ranks.is_first and kept.is_file() else "")
    if said:
        return with_references(examples, json.loads(said))
    mine = sorted(ranks.divide(range(len(examples)), [e.num_tokens for e in examples])[ranks.rank])
    budget = settled(recipe.training.micro_batch_tokens)
    found = reference_logprobs(
        model, [examples[i] for i in mine], budget, lambda done: told(done, len(mine))
    )
    places = [(0.0, 0.0)] * len(examples)
    for i, reference in zip(mine, found, strict=True):
        places[i] = reference
    total = ranks.sum(*(x for reference in places for x in reference))
    references = list(zip(total[::2], total[1::2], strict=True))
    if ranks.is_first:
        write_atomically(kept, json.dumps(references))
    return with_references(examples, references)
