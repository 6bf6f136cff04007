"""The map of a dataset before and after tuning, and how far its classes stand apart.

Vectors of held-out rows come in, a point in the plane for each and three figures go out: silhouette
(Rousseeuw 1987), accuracy of the nearest neighbours, each row left out in turn, and the distance
between classes over that within. The plane is the same method with the same seed before and after;
figures are of the whole vectors, not of the plane.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from luthier.evaluation.searching import normalized
from luthier.evaluation.statistics import mean_interval
from luthier.evaluation.values import Estimate
from luthier.evaluation.wholes import Numbers
from luthier.recipe import Judging

Classes = npt.NDArray[np.int64]
MAX_POINTS = 2000
NUM_NEIGHBOURS = 5
FEW_LABELS = 10
"""Labels up to which the two widest axes (PCA) are looked at."""


@dataclass(frozen=True, slots=True)
class Point:
    """A held-out row in the plane."""

    example_id: str
    label: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Separation:
    """How far classes stand apart in vectors of length 1."""

    silhouette: Estimate
    neighbours: Estimate
    """Share of rows whose nearest neighbours are mostly of their own class."""
    ratio: Estimate
    """Mean cosine distance to other classes' rows over that to the own class's."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """Held-out rows in the plane before and after tuning, and figures of both."""

    method: str
    before: tuple[Point, ...]
    after: tuple[Point, ...]
    separation_before: Separation
    separation_after: Separation
    unseen: tuple[str, ...]
    """Labels that no training row has."""


def draw_map(
    ids: Sequence[str],
    labels: Sequence[str],
    vectors: tuple[Numbers, Numbers],
    known: frozenset[str],
    evaluation: Judging,
    *,
    seed: int,
) -> ClassMap | None:
    """The map of rows by their vectors [n, D] before and after.

    `known` are the labels of the training rows. None for fewer than three rows or two labels, or
    where every row has a label of its own: nothing could come apart.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(ids))[:MAX_POINTS])
    kept_ids, kept = [ids[i] for i in chosen], [labels[i] for i in chosen]
    if len(kept) < 3 or not 2 <= len(set(kept)) < len(kept):
        return None
    before, after = (normalized(v[chosen]).astype(np.float64, copy=False) for v in vectors)
    method, project = _projection(len(set(kept)), seed)
    return ClassMap(
        method,
        _points(kept_ids, kept, project(before)),
        _points(kept_ids, kept, project(after)),
        separation(before, kept, evaluation, seed=seed),
        separation(after, kept, evaluation, seed=seed),
        tuple(sorted(set(kept) - known)),
    )


def _projection(num_labels: int, seed: int) -> tuple[str, Callable[[Numbers], Numbers]]:
    """UMAP where it is installed; else PCA, or t-SNE for more labels than two axes can part."""
    if find_spec("umap") is None and num_labels <= FEW_LABELS:
        from sklearn.decomposition import PCA

        return "PCA", lambda vectors: PCA(2, random_state=seed).fit_transform(vectors)

    if find_spec("umap") is None:
        return "t-SNE", partial(_neighbourhoods, seed=seed)

    def project(vectors: Numbers) -> Numbers:
        import umap

        neighbours = min(15, len(vectors) - 1)
        plane = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed)
        found: Numbers = plane.fit_transform(vectors)
        return found

    return "UMAP", project


def _neighbourhoods(vectors: Numbers, seed: int) -> Numbers:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    plane = TSNE(2, perplexity=perplexity, metric="cosine", random_state=seed)
    found: Numbers = plane.fit_transform(vectors)
    return found


def _points(ids: Sequence[str], labels: Sequence[str], plane: Numbers) -> tuple[Point, ...]:
    return tuple(
        Point(example_id, label, round(float(x), 4), round(float(y), 4))
        for example_id, label, (x, y) in zip(ids, labels, plane, strict=True)
    )


def separation(
    vectors: Numbers, labels: Sequence[str], evaluation: Judging, *, seed: int
) -> Separation:
    """The three figures, each a mean over rows with its interval; vectors [n, D] at length 1."""
    from sklearn.metrics import silhouette_samples

    classes = np.unique(list(labels), return_inverse=True)[1]
    cosines = np.clip(1 - vectors @ vectors.T, 0, 2)
    np.fill_diagonal(cosines, 0)
    silhouettes = silhouette_samples(cosines, classes, metric="precomputed")
    return Separation(
        _estimated(silhouettes, evaluation, seed),
        _estimated(_own_neighbours(cosines, classes), evaluation, seed),
        _estimated(_ratios(cosines, classes), evaluation, seed),
    )


def _own_neighbours(distances: Numbers, classes: Classes) -> Numbers:
    """1 for rows most of whose nearest neighbours are of their class."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NUM_NEIGHBOURS, len(classes) - 1)
    search = NearestNeighbors(n_neighbors=count, metric="precomputed").fit(distances)
    nearest = search.kneighbors(return_distance=False)
    votes = classes[nearest]
    return np.array(
        [float(np.bincount(row).argmax() == own) for row, own in zip(votes, classes, strict=True)]
    )


def _ratios(distances: Numbers, classes: Classes) -> Numbers:
    """Mean distance to rows of other classes over that to the own one, of rows that have both."""
    same = classes[:, None] == classes
    np.fill_diagonal(same, False)
    others = classes[:, None] != classes
    within = np.divide(
        (distances * same).sum(1), same.sum(1), out=np.zeros(len(classes)), where=same.any(1)
    )
    between = (distances * others).sum(1) / np.maximum(1, others.sum(1))
    usable = within > 1e-9
    ratios: Numbers = between[usable] / within[usable]
    return ratios


def _estimated(values: Numbers, evaluation: Judging, seed: int) -> Estimate:
    if not len(values):
        return Estimate(None, None, None, 0, "no rows")
    rng = np.random.default_rng(seed)
    interval = mean_interval(values.tolist(), evaluation.confidence, evaluation.resamples, rng)
    return Estimate(float(values.mean()), interval.low, interval.high, len(values), interval.method)
