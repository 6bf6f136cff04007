"""Training of models that read whole texts, as each of the processes that train together does it.

A classifier learns its labels, or first learns to tell texts apart and then its head is solved; a
model of vectors learns from what belongs together. After training, validation rows say how sure a
classifier may be, and from which probability each of several labels is given.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, pstdev
from typing import Any

import numpy as np

from luthier.data import Labelled, LabelSet
from luthier.errors import ConfigError
from luthier.evaluation import best_temperature, best_thresholds
from luthier.models import (
    Encoder,
    fold_scale,
    logits_of,
    make_encoder_trainable,
    peak_memory,
)
from luthier.pipeline.asking import Answering
from luthier.pipeline.learning import Circumstances
from luthier.pipeline.preparing import Prepared
from luthier.recipe import Classify, Embed, recipe_hash, settled
from luthier.tokens import EncodedTexts
from luthier.training import (
    ClassObjective,
    LabelContrast,
    Measured,
    Objective,
    Outcome,
    PairContrast,
    ScoreContrast,
    Surroundings,
    fit_head,
    measure,
    measure_parted,
    multi_hot,
    start_from_probe,
    train,
    with_hard_negatives,
)

MIN_HELD_OUT = 10
"""Validation rows with a label, and without it, from which its threshold is chosen; else 0.5."""
CONTRAST_SCALE = 20.0
"""Inverse temperature of the contrast of labels, sentence-transformers' default."""


def answering_of(prepared: Prepared) -> Answering | None:
    """What a classifier's answers will mean; None for vectors."""
    if not isinstance(prepared.recipe.method, Classify):
        return None
    assert prepared.labels is not None, "classifiers learn from labelled rows"
    learnt = prepared.train.examples
    reads_pairs = isinstance(learnt[0], Labelled) and learnt[0].second is not None
    return Answering(prepared.labels.kind, prepared.labels.names, reads_pairs=reads_pairs)


def learn_to_read(
    model: Encoder,
    prepared: Prepared,
    answering: Answering | None,
    circumstances: Circumstances,
) -> tuple[Outcome, Answering | None]:
    """Train the model in place as the recipe says; it has the best weights unless interrupted."""
    recipe = prepared.recipe
    budget = settled(recipe.training.micro_batch_tokens)
    learnt, held_out = _encoded(prepared.train), _encoded(prepared.validation)
    used = None
    if not recipe.training.weight_decay:
        used = {i for example in learnt for text in example.texts for i in text.input_ids}
    make_encoder_trainable(model, recipe.tuning, recipe.training.seed, used)
    if isinstance(recipe.method, Embed) and prepared.labels is None and learnt[0].value is None:
        learnt = with_hard_negatives(model, learnt, recipe.method.hard_negatives, budget)
    is_two_stage = isinstance(recipe.method, Classify) and recipe.method.stages == "two"
    if is_two_stage and model.network.head is not None:
        model.network.head.requires_grad_(False)  # solved afterwards
    elif answering is not None and answering.kind != "number":
        is_multi, seed = answering.kind == "multi", recipe.training.seed
        start_from_probe(
            model, learnt, circumstances.ranks, is_multi=is_multi, budget=budget, seed=seed
        )
    objective = _objective(prepared, model, learnt)

    def check() -> Measured:
        if isinstance(objective, ClassObjective) and answering and answering.kind == "single":
            return _measure_calibrated(model, objective, held_out, budget)
        judge = measure_parted if objective.looks == "in parts" else measure
        return judge(model, objective, held_out, budget, circumstances.ranks)

    surroundings = Surroundings(
        folder=circumstances.checkpoints,
        recipe_hash=recipe_hash(recipe),
        validate=check if _can_judge(objective, held_out) else None,
        observe=circumstances.observe,
        is_interrupted=circumstances.is_interrupted,
        memory=peak_memory,
        ranks=circumstances.ranks,
        profiler=circumstances.profiler,
        resumed=circumstances.resumed,
    )
    classes = _classes(prepared, learnt, is_two_stage)
    outcome = train(model, objective, learnt, recipe.training, surroundings, classes)
    if outcome.status == "interrupted" or answering is None:
        return outcome, answering
    if is_two_stage:
        weights = _class_weights(prepared, len(learnt))
        fit_head(model, learnt, is_multi=False, budget=budget, weights=weights)
    return outcome, _settled_answering(model, prepared, answering, held_out)


def _can_judge(objective: Objective, held_out: Sequence[EncodedTexts]) -> bool:
    """Whether validation rows tell steps apart: labels alone do only where two rows share one."""
    if isinstance(objective, LabelContrast):
        return len({example.classes[0] for example in held_out}) < len(held_out)
    return bool(held_out)


def _measure_calibrated(
    model: Encoder, objective: ClassObjective, held_out: Sequence[EncodedTexts], budget: int
) -> Measured:
    """Loss at the temperature that suits these rows best, which the saved model will have.

    A classifier grows too sure long before its answers grow worse; without this, the step kept as
    the best would be too early a one.
    """
    logits = logits_of(model, [example.texts[0] for example in held_out], budget)
    labels = [example.classes[0] for example in held_out]
    temperature = best_temperature(logits.numpy().astype(np.float64), labels)
    losses = objective.judge(logits / temperature, held_out)
    watched = {name: value / len(held_out) for name, value in losses.watched.items()}
    return Measured(losses.total.item() / objective.count(held_out), watched)


def _encoded(split: Any) -> Sequence[EncodedTexts]:
    found: Sequence[EncodedTexts] = split.encoded
    return found


def _objective(prepared: Prepared, model: Encoder, learnt: Sequence[EncodedTexts]) -> Objective:
    method, labels = prepared.recipe.method, prepared.labels
    if isinstance(method, Classify):
        assert labels is not None, "classifiers learn from labelled rows"
        if method.stages == "two":
            return LabelContrast(CONTRAST_SCALE, is_causal=model.is_causal)
        return ClassObjective(
            labels.kind,
            num_classes=max(1, labels.num_labels),
            weights=_class_weights(prepared, len(learnt)),
            scale=_scale(labels, learnt),
            is_causal=model.is_causal,
        )
    assert isinstance(method, Embed), "the other method of texts"
    if labels is not None:
        return LabelContrast(method.scale, method.dimensions, is_causal=model.is_causal)
    if learnt[0].value is not None:
        return ScoreContrast(method.scale, method.dimensions, is_causal=model.is_causal)
    return PairContrast(
        method.scale,
        method.dimensions,
        is_symmetric=method.direction == "both",
        is_causal=model.is_causal,
    )


def _class_weights(prepared: Prepared, num_rows: int) -> list[float]:
    """Weights under which classes count equally; of several labels, those with against without.

    None unless they are wanted.
    """
    method, labels = prepared.recipe.method, prepared.labels
    if labels is None or not isinstance(method, Classify) or method.balance != "weights":
        return []
    if labels.kind == "multi":
        return [(num_rows - count) / count for count in labels.counts]
    return [num_rows / (labels.num_labels * count) for count in labels.counts]


def _scale(labels: LabelSet, learnt: Sequence[EncodedTexts]) -> tuple[float, float]:
    """Mean and spread of the numbers to be learnt."""
    if labels.kind != "number":
        return 0.0, 1.0
    values = [e.value for e in learnt if e.value is not None]
    return fmean(values), pstdev(values) or 1.0


def _classes(
    prepared: Prepared, learnt: Sequence[EncodedTexts], is_two_stage: bool
) -> Sequence[int]:
    """The class of each example, where all classes are to come equally often."""
    method, labels = prepared.recipe.method, prepared.labels
    if labels is None or labels.kind != "single":
        return ()
    wanted = is_two_stage or isinstance(method, Embed)
    wanted |= isinstance(method, Classify) and method.balance == "batches"
    if wanted and prepared.recipe.training.order == "given":
        raise ConfigError(
            "is given, and this method takes rows so that all labels come equally often",
            where="training.order", accepted="shuffled",
        )  # fmt: skip
    return [example.classes[0] for example in learnt] if wanted else ()


def _settled_answering(
    model: Encoder,
    prepared: Prepared,
    answering: Answering,
    held_out: Sequence[EncodedTexts],
) -> Answering:
    """The answers in their own unit, as sure as the validation rows allow."""
    labels, head = prepared.labels, model.network.head
    assert labels is not None and head is not None, "a classifier has both"  # noqa: PT018
    if answering.kind == "number":
        mean, spread = _scale(labels, _encoded(prepared.train))
        fold_scale(head, mean, spread)
        return answering
    if not held_out:
        return answering
    budget = settled(prepared.recipe.training.micro_batch_tokens)
    logits = logits_of(model, [e.texts[0] for e in held_out], budget).numpy().astype(np.float64)
    if answering.kind == "single":
        temperature = best_temperature(logits, [e.classes[0] for e in held_out])
        fold_scale(head, 0.0, 1 / temperature)
        return replace(answering, temperature=temperature)
    truth = multi_hot(held_out, logits.shape[1]).numpy().astype(np.float64)
    best = best_thresholds(answering.probabilities(logits), truth)
    counts = truth.sum(0)
    chosen = (
        threshold if MIN_HELD_OUT <= count <= len(truth) - MIN_HELD_OUT else 0.5
        for threshold, count in zip(best, counts, strict=True)
    )  # fmt: skip
    return replace(answering, thresholds=tuple(chosen))
