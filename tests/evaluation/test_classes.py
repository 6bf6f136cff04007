"""Numbers of classifiers and searches are those of scikit-learn and trec_eval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from evaluation_fakes import make_evaluation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    ndcg_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from luthier.data import Example, Labelled, LabelSet, Pair, Place, Query
from luthier.evaluation import (
    RANKING_SCORERS,
    BM25Predictor,
    Prediction,
    SystemResult,
    TfidfSearchPredictor,
    TfidfSimilarityPredictor,
    best_temperature,
    best_thresholds,
    class_details,
    class_scorers,
    conclude,
    run_system,
    slices_of,
    suggest_for_texts,
)
from luthier.evaluation.baselines import label_baselines, label_prediction, readable
from luthier.evaluation.calibration import calibrate
from luthier.evaluation.classes import NumberRows, label_rows, quadratic_kappa, spearman
from luthier.evaluation.details import ranking_figures
from luthier.evaluation.separation import draw_map
from luthier.evaluation.suspects import find_suspects
from luthier.evaluation.wholes import WholeScorer

NAMES = ("bad", "fine", "good")
SINGLE = LabelSet("single", NAMES, (1, 1, 1))
MULTI = LabelSet("multi", NAMES, (1, 1, 1))
SETTINGS = make_evaluation("accuracy", "macro_f1", resamples=400)


def rows(labels: Sequence[tuple[str, ...]], **slices: str) -> list[Labelled]:
    return [
        Labelled(f"row {i}", Place("f", i + 1), f"text {i}", None, own, slices=slices)
        for i, own in enumerate(labels)
    ]


class Fixed:
    """A system whose probabilities are known."""

    def __init__(self, name: str, label_set: LabelSet, shares: np.ndarray) -> None:
        self.name, self._labels, self._shares = name, label_set, shares

    def predict(self, examples: Sequence[object]) -> list[Prediction]:
        return [
            label_prediction(f"row {i}", self._labels, row) for i, row in enumerate(self._shares)
        ]


def drawn(n: int, right: float, seed: int = 0) -> tuple[list[Labelled], np.ndarray]:
    """Rows of uneven labels, and probabilities that are right so often."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, n, p=[0.2, 0.3, 0.5])
    shares = rng.dirichlet([1, 1, 1], n)
    for i in np.flatnonzero(rng.random(n) < right):
        row = np.sort(shares[i])
        shares[i] = np.roll(row, truth[i] + 1)
        j = int(shares[i].argmax())
        shares[i, [j, truth[i]]] = shares[i, [truth[i], j]]
    return rows([(NAMES[i],) for i in truth]), shares


def run(name: str, kind: str, examples: list[Labelled], shares: np.ndarray) -> SystemResult:
    scorers = list(class_scorers(SINGLE, examples).values())
    return run_system(Fixed(name, SINGLE, shares), kind, examples, scorers, SETTINGS)  # type: ignore[arg-type]


def test_single_labels_are_scored_as_scikit_learn_does() -> None:
    examples, shares = drawn(200, 0.6)
    result = run("fixed", "other", examples, shares)
    truth = [e.labels[0] for e in examples]
    given_ = [p.labels[0] for p in result.predictions]
    expected = {
        "accuracy": float(np.mean([a == b for a, b in zip(truth, given_, strict=True)])),
        "balanced_accuracy": balanced_accuracy_score(truth, given_),
        "macro_f1": f1_score(truth, given_, average="macro"),
        "log_loss": log_loss(truth, shares, labels=list(NAMES)),
    }
    for name, value in expected.items():
        estimate = result.estimates[name]
        assert estimate.value == pytest.approx(value), name
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < value < estimate.high


def test_several_labels_are_scored_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, (80, 3))
    shares = np.clip(truth * 0.4 + rng.random((80, 3)) * 0.7, 0, 1)
    examples = rows([tuple(n for n, x in zip(NAMES, row, strict=True) if x) for row in truth])
    scorers = class_scorers(MULTI, examples)
    settings_ = make_evaluation("labels_f1", resamples=200)
    result = run_system(
        Fixed("fixed", MULTI, shares), "baseline", examples, list(scorers.values()), settings_
    )
    given_ = (shares >= 0.5).astype(int)
    for average in ("macro", "micro"):
        assert result.estimates[f"{average}_f1"].value == pytest.approx(
            f1_score(truth, given_, average=average, zero_division=0)
        )
    assert result.estimates["labels_f1"].value == pytest.approx(
        f1_score(truth, given_, average="samples", zero_division=1.0)
    )
    assert result.estimates["labels"].value == pytest.approx((truth == given_).all(1).mean())


def test_a_label_that_training_did_not_have_counts_as_wrong() -> None:
    examples = rows([("good",), ("new",)])
    shares = np.array([[0.0, 0.1, 0.9], [0.0, 0.1, 0.9]])
    result = run("fixed", "other", examples, shares)
    assert result.estimates["accuracy"].value == 0.5
    assert result.scores["log_loss"][1] is None


def test_a_better_classifier_is_found_better_on_every_metric_and_an_equal_one_on_none() -> None:
    examples, weak = drawn(300, 0.3)
    _, strong = drawn(300, 0.8)
    scorers = list(class_scorers(SINGLE, examples).values())
    ordered = sorted(scorers, key=lambda s: s.metric.name != "macro_f1")
    settings_ = make_evaluation("macro_f1", "accuracy", resamples=400)
    before, after = run("weak", "baseline", examples, weak), run("tuned", "tuned", examples, strong)
    result = conclude(examples, [before, after], ordered, settings_)
    assert result.verdict is not None
    assert result.verdict.decision == "better"
    assert "strongest baseline (weak)" in result.verdict.paragraph
    assert "fixed" not in result.verdict.paragraph, "macro F1 belongs to no row"
    assert all(c.p_value < 0.05 for c in result.comparisons)
    again = run("tuned", "tuned", examples, weak)
    same = conclude(examples, [before, again], ordered, settings_)
    assert same.verdict is not None
    assert same.verdict.decision == "cannot tell"


def test_the_paired_permutation_keeps_its_level() -> None:
    """Two systems of equal quality come out different at 5 % in about that share of trials."""
    scorer = class_scorers(SINGLE, [])["macro_f1"]
    assert isinstance(scorer, WholeScorer)
    settings_ = make_evaluation("macro_f1", resamples=200)
    found = 0
    for trial in range(60):
        examples, one = drawn(60, 0.5, seed=trial)
        order = np.random.default_rng(trial).permutation(60)
        _, other = drawn(60, 0.5, seed=trial)
        rng = np.random.default_rng(1000 + trial)
        keep = rng.random(60) < 0.5
        mixed = [np.where(k[:, None], one, other[order]) for k in (keep, ~keep)]
        systems = [
            run_system(Fixed(name, SINGLE, shares), kind, examples, [scorer], settings_)  # type: ignore[arg-type]
            for name, kind, shares in zip("ab", ("baseline", "tuned"), mixed, strict=True)
        ]
        result = conclude(examples, systems, [scorer], settings_)
        found += result.comparisons[0].p_value < 0.05
    assert found <= stats.binom.ppf(0.999, 60, 0.05)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
@settings(max_examples=60, deadline=None)
def test_spearman_is_scipys_also_with_rows_drawn_more_than_once(
    pairs: list[tuple[int, int]],
) -> None:
    truth, given_ = np.array(pairs, dtype=float).T
    counts = np.arange(len(pairs)) % 3
    repeated = np.repeat(np.arange(len(pairs)), counts)
    evidence = NumberRows(truth, given_)
    plain, drawn_ = spearman(evidence, np.vstack((np.ones(len(pairs)), counts)))
    for found, chosen in ((plain, np.arange(len(pairs))), (drawn_, repeated)):
        if len(set(truth[chosen])) < 2 or len(set(given_[chosen])) < 2:
            assert math.isnan(found)
        else:
            expected = stats.spearmanr(truth[chosen], given_[chosen]).statistic
            assert found == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30))
@settings(max_examples=60, deadline=None)
def test_quadratic_kappa_is_scikit_learns_also_with_rows_drawn_more_than_once(
    pairs: list[tuple[int, int]],
) -> None:
    truth, given_ = np.array([*pairs, (0, 0), (4, 4)], dtype=float).T
    counts = np.arange(len(truth)) % 3
    counts[-2:] = 1
    repeated = np.repeat(np.arange(len(truth)), counts)
    noise = np.linspace(-0.4, 0.4, len(truth))
    evidence = NumberRows(truth, given_ + noise)
    plain, drawn_ = quadratic_kappa(evidence, np.vstack((np.ones(len(truth)), counts)))
    for found, chosen in ((plain, np.arange(len(truth))), (drawn_, repeated)):
        sides = truth[chosen], given_[chosen]
        expected = cohen_kappa_score(*sides, labels=range(5), weights="quadratic")
        assert found == pytest.approx(expected, abs=1e-9)


def test_grades_are_judged_by_kappa_too() -> None:
    number = LabelSet("number", (), ())
    stars = rows([(str(i % 5),) for i in range(10)])
    assert "quadratic_kappa" in suggest_for_texts(stars, number).metrics
    for others in ([("0",), ("1",)] * 5, [(f"{i}.5",) for i in range(5)]):
        assert "quadratic_kappa" not in suggest_for_texts(rows(others), number).metrics
    halves = NumberRows(np.array([0.5, 1, 2]), np.array([1.0, 1, 2]))
    assert np.isnan(quadratic_kappa(halves, np.ones((2, 3)))).all()


def test_numbers_are_scored_by_their_distance() -> None:
    labels = LabelSet("number", (), ())
    examples = rows([("1",), ("2.5",), ("4",)])
    answers = [Prediction(f"row {i}", "", True, 0, value=v) for i, v in enumerate((1.5, 2.5, 3.0))]
    scorer = class_scorers(labels, examples)["absolute_error"]
    assert not isinstance(scorer, WholeScorer)
    found = [scorer.score(a, e) for a, e in zip(answers, examples, strict=True)]
    assert found == [0.5, 0.0, 1.0]
    assert np.mean([f for f in found if f is not None]) == pytest.approx(
        mean_absolute_error([1, 2.5, 4], [1.5, 2.5, 3.0])
    )


def test_rankings_are_judged_as_by_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    names = [f"d{i}" for i in range(20)]
    for _ in range(20):
        grades = rng.choice([0, 0, 0, 1, 2], 20)
        if not grades.any():
            continue
        scores = rng.random(20)
        ranking = tuple(names[i] for i in np.argsort(-scores))
        relevant = tuple((n, float(g)) for n, g in zip(names, grades, strict=True) if g)
        query = Query("q", Place("f", 1), "?", relevant)
        answer = Prediction("q", "", True, 0, ranking=ranking)
        found = {name: s.score(answer, query) for name, s in RANKING_SCORERS.items()}
        assert found["ndcg_10"] == pytest.approx(ndcg_score([grades], [scores], k=10))
        first = next(i for i, name in enumerate(ranking, 1) if dict(relevant).get(name))
        assert found["mrr_10"] == pytest.approx(1 / first if first <= 10 else 0)
        in_ten = sum(name in dict(relevant) for name in ranking[:10])
        assert found["recall_10"] == pytest.approx(in_ten / len(relevant))


def test_details_tell_label_by_label_as_scikit_learn_does() -> None:
    examples, shares = drawn(120, 0.7)
    predictions = Fixed("x", SINGLE, shares).predict(examples)
    details = class_details("x", predictions, examples, SINGLE, SETTINGS, seed=0)
    assert [d.label for d in details.labels] == list(NAMES)
    assert sum(sum(row) for row in details.confusion) == 120
    truth = [e.labels[0] for e in examples]
    given_ = [p.labels[0] for p in predictions]
    expected = f1_score(truth, given_, average=None, labels=list(NAMES))
    assert [d.f1.value for d in details.labels] == pytest.approx(list(expected))
    for i, each in enumerate(details.labels):
        own = [label == each.label for label in truth]
        assert each.auroc.value == pytest.approx(roc_auc_score(own, shares[:, i]))
        assert each.average_precision.value == pytest.approx(
            average_precision_score(own, shares[:, i])
        )
        for found in (each.precision, each.recall, each.f1, each.auroc, each.average_precision):
            low, high = found.low, found.high
            assert low is not None
            assert high is not None
            assert low < (found.value or 0.0) < high
    for average in details.averages:
        wanted = precision_recall_fscore_support(truth, given_, average=average.name)[:3]
        found_values = [x.value for x in (average.precision, average.recall, average.f1)]
        assert found_values == pytest.approx(list(wanted))
    assert details.calibration is not None
    assert sum(b.n for b in details.calibration.bins) == 120


def test_averages_leave_out_labels_that_a_resample_does_not_hold() -> None:
    names = ("bad", "fine", "good")
    label_set = LabelSet("single", names, (30, 30, 1))
    labels = [names[i % 2] for i in range(60)] + ["good"]
    examples = rows([(label,) for label in labels])
    sure = np.eye(3)[[names.index(label) for label in labels]]
    predictions = Fixed("x", label_set, sure).predict(examples)
    macro = class_details("x", predictions, examples, label_set, SETTINGS, seed=0).averages[0]
    for found in (macro.precision, macro.recall, macro.f1):
        assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0), "nothing is ever wrong"


def test_a_label_that_no_row_has_is_not_judged() -> None:
    examples, shares = drawn(40, 0.7)
    kept = [i for i, e in enumerate(examples) if e.labels[0] != NAMES[0]]
    predictions = Fixed("x", SINGLE, shares[kept]).predict([examples[i] for i in kept])
    details = class_details("x", predictions, [examples[i] for i in kept], SINGLE, SETTINGS, seed=0)
    missing = details.labels[0]
    assert missing.support == 0
    assert missing.recall.value is missing.auroc.value is missing.average_precision.value is None


@given(data=st.data())
@settings(deadline=None)
def test_resampled_rankings_are_scikit_learns_with_weights(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 12))
    truth = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n)))
    scores = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.4, 0.5, 0.9]), min_size=n,
                                         max_size=n)))  # fmt: skip
    weights = np.array(
        data.draw(st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1,
                           max_size=3)), dtype=float)  # fmt: skip
    area, precision = ranking_figures(truth, scores, weights)
    for i, row in enumerate(weights):
        there = row > 0
        if len(set(truth[there])) < 2:
            assert np.isnan(area[i])
            assert np.isnan(precision[i])
            continue
        assert area[i] == pytest.approx(roc_auc_score(truth, scores, sample_weight=row))
        expected = average_precision_score(truth, scores, sample_weight=row)
        assert precision[i] == pytest.approx(expected)


@dataclass(frozen=True)
class Answers:
    name: str
    predictions: tuple[Prediction, ...]

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        return list(self.predictions)


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_slices_are_what_their_rows_alone_would_give(name: str) -> None:
    examples, shares = drawn(121, 0.7)
    examples = [
        Labelled(e.id, e.place, e.text, None, e.labels,
                 slices={"lang": "en" if i % 2 else "de", "id": str(i), "rare": str(i // 117)})
        for i, e in enumerate(examples)
    ]  # fmt: skip
    scorer = class_scorers(SINGLE, examples)[name]
    system = run_system(Fixed("x", SINGLE, shares), "tuned", examples, [scorer], SETTINGS)
    found = slices_of(system, scorer, examples, SETTINGS, seed=0)
    # A column with too many values makes no slice, nor does a value of too few rows.
    assert [(s.column, s.value, s.num_rows) for s in found.parts] == [
        ("lang", "de", 61), ("lang", "en", 60), ("rare", "0", 117),
    ]  # fmt: skip
    english = examples[1::2]
    own = Answers("x", system.predictions[1::2])
    alone = run_system(own, "tuned", english, [scorer], SETTINGS)
    assert found.parts[1].estimate == alone.estimates[name]


def test_rows_without_labels_that_were_given_none_have_no_averages() -> None:
    examples = rows([(), (), ()])
    predictions = [Prediction(e.id, "", True, 0, labels=(), probabilities=(0.1, 0.2, 0.3))
                   for e in examples]  # fmt: skip
    details = class_details("x", predictions, examples, MULTI, SETTINGS, seed=0)
    assert [average.f1.value for average in details.averages] == [None, None]


def test_of_many_labels_neighbours_are_asked_and_linear_models_are_not() -> None:
    names = tuple(f"label {i:03}" for i in range(300))
    train = rows([(name,) for name in names for _ in range(2)])
    labels = LabelSet("single", names, (2,) * 300)
    vectors = {e.text: np.eye(300)[i // 2] for i, e in enumerate(train)}
    found = label_baselines(train, labels, lambda texts: np.array(
        [vectors.get(text, np.ones(300)) for text in texts]))  # fmt: skip
    assert [p.name for p in found] == [
        "most frequent label", "TF-IDF, nearest neighbours", "nearest neighbours",
        "nearest label name",
    ]  # fmt: skip
    assert [p.text for p in found[2].predict(train)] == [e.labels[0] for e in train]


def test_words_find_what_shares_them() -> None:
    texts = {"a": "a red lamp for the kitchen", "b": "a saw for wood", "c": "green paint, water"}
    queries = [Query(f"q{i}", Place("f", i + 1), text, ((name, 1.0),))
               for i, (text, name) in enumerate((("kitchen lamp", "a"), ("saw", "b")))]  # fmt: skip
    for predictor in (BM25Predictor(texts), TfidfSearchPredictor(texts, depth=2)):
        found = predictor.predict(queries)
        assert [p.ranking[0] for p in found] == ["a", "b"]
    assert len(found[0].ranking) == 2
    pairs = [
        Pair("1", Place("f", 1), "a red lamp", "the red lamp", score=1.0),
        Pair("2", Place("f", 2), "a red lamp", "green paint", score=0.0),
    ]
    first, second = TfidfSimilarityPredictor(pairs).predict(pairs)
    assert first.value is not None
    assert first.value > 0.3
    assert second.value == 0.0


def test_the_best_temperature_makes_sureness_true() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = [int(rng.choice(3, p=row)) for row in shares]
    assert best_temperature(3 * logits, labels) == pytest.approx(3, rel=0.1)
    truth = np.eye(3)[labels]
    too_sure = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    assert calibrate(truth, shares, is_single=True).error < 0.03
    assert calibrate(truth, too_sure, is_single=True).error > 0.1
    assert best_temperature(logits[:1], labels[:1]) == 1.0


def test_a_few_rows_that_are_all_right_make_nobody_certain() -> None:
    labels = [i % 2 for i in range(20)]
    logits = np.array([[3.0, -3.0] if label == 0 else [-3.0, 3.0] for label in labels])
    shares = softmax(logits / best_temperature(logits, labels), axis=1)
    assert 0.95 < shares.max() < 0.99


def test_thresholds_part_rows_with_a_label_from_those_without() -> None:
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.35, 0.6]])
    truth = np.array([[0, 1], [0, 1], [1, 1], [1, 1]])
    first, second = best_thresholds(scores, truth)
    assert first == pytest.approx(0.25)
    assert second == 0.5, "all rows have it"


def test_simple_methods_learn_what_is_simple() -> None:
    words = {"good": "nice fine lovely", "bad": "awful poor sad"}
    train = [
        Labelled(f"{label} {i}", Place("f", i), f"{word} thing {i}", None, (label,))
        for label, own in words.items()
        for i, word in enumerate(own.split() * 4)
    ]
    label_set = LabelSet("single", ("bad", "good"), (12, 12))
    vocabulary = sorted({w for own in words.values() for w in own.split()} | {"good", "bad"})

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.array([[float(w in t.split()) for w in vocabulary] + [0.1] for t in texts])

    test = [Labelled("x", Place("f", 1), "a lovely day", None, ("good",)),
            Labelled("y", Place("f", 2), "an awful day", None, ("bad",))]  # fmt: skip
    found = {
        p.name: [a.text for a in p.predict(test)] for p in label_baselines(train, label_set, embed)
    }
    right = ["good", "bad"]

    def never(texts: Sequence[str]) -> np.ndarray:
        raise AssertionError("nothing is computed before it is asked for")

    label_baselines(train, label_set, never)
    assert found["TF-IDF, linear"] == right
    assert found["nearest neighbours"] == right
    assert found["linear probe"] == right
    assert len(set(found["most frequent label"])) == 1
    assert "nearest label name" in found
    assert readable("HassTurnOn") == "hass turn on"
    assert readable("noun.body-part") == "noun body part"


def test_simple_methods_know_rows_that_have_one_tag_or_none() -> None:
    train = [
        Labelled(f"{i}", Place("f", i), text, None, labels, "list")
        for i, (text, labels) in enumerate([("bad word", ("toxic",)), ("kind word", ())] * 8, 1)
    ]
    label_set = LabelSet("multi", ("toxic",), (8,))

    def embed(texts: Sequence[str]) -> np.ndarray:
        return np.array([[float("bad" in text), 0.1] for text in texts])

    for method in label_baselines(train, label_set, embed):
        found = method.predict(train[:2])
        assert [len(p.probabilities) for p in found] == [1, 1], method.name
        if method.name.startswith(("TF-IDF", "linear", "nearest neigh")):
            assert [p.labels for p in found] == [("toxic",), ()], method.name


def clouds(spread: float, n: int = 60) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8) * 3
    labels = [NAMES[i % 3] for i in range(n)]
    vectors = np.array([centres[i % 3] for i in range(n)]) + rng.normal(size=(n, 8)) * spread
    return labels, vectors


def test_the_map_tells_classes_that_came_apart() -> None:
    labels, loose = clouds(3.0)
    _, tight = clouds(0.3)
    ids = [f"row {i}" for i in range(60)]
    found = draw_map(ids, labels, (loose, tight), frozenset({"bad", "fine"}), SETTINGS, seed=0)
    assert found is not None
    assert found.unseen == ("good",)
    assert len(found.before) == len(found.after) == 60
    before, after = found.separation_before, found.separation_after
    for one, other in (
        (before.silhouette, after.silhouette), (before.neighbours, after.neighbours),
        (before.ratio, after.ratio),
    ):  # fmt: skip
        assert one.value is not None
        assert other.value is not None
        assert one.value < other.value
        assert one.low is not None
        assert other.low is not None
    again = draw_map(ids, labels, (loose, tight), frozenset({"bad", "fine"}), SETTINGS, seed=0)
    assert again == found


def test_nothing_is_drawn_where_every_row_has_a_label_of_its_own() -> None:
    vectors = np.eye(4)
    found = draw_map(["1", "2", "3", "4"], list("abcd"), (vectors, vectors), frozenset("abcd"),
                     SETTINGS, seed=0)  # fmt: skip
    assert found is None


def test_wrong_labels_are_suspected_and_named_by_their_place() -> None:
    labels, vectors = clouds(0.4, 90)
    wrong = {
        7: "good" if labels[7] != "good" else "bad",
        40: "fine" if labels[40] != "fine" else "bad",
    }
    given_ = [wrong.get(i, label) for i, label in enumerate(labels)]
    train = [
        Labelled(f"row {i}", Place("rows.jsonl", i + 1), f"{labels[i]} text {i}", None, (label,))
        for i, label in enumerate(given_)
    ]
    label_set = LabelSet("single", NAMES, tuple(given_.count(n) for n in NAMES))
    found = find_suspects(train, vectors, label_set, seed=0)
    assert {s.place for s in found} == {"rows.jsonl:8", "rows.jsonl:41"}
    assert all(s.suggested == labels[int(s.example_id.split()[1])] for s in found)


def test_equal_rows_drawn_together_are_as_rows_drawn_one_by_one() -> None:
    """Rows in groups of one are drawn row by row: the same limits and p-value come of both."""
    examples, one = drawn(150, 0.55, seed=3)
    _, other = drawn(150, 0.62, seed=4)
    examples = [replace(e, slices={"row": e.id}) for e in examples]
    scorer = class_scorers(SINGLE, examples)["macro_f1"]
    assert isinstance(scorer, WholeScorer)
    found = []
    for settings_ in (
        make_evaluation("macro_f1", resamples=4000),
        make_evaluation("macro_f1", resamples=4000, group="row"),
    ):
        systems = [
            run_system(Fixed(name, SINGLE, shares), kind, examples, [scorer], settings_)  # type: ignore[arg-type]
            for name, kind, shares in (("a", "baseline", one), ("b", "tuned", other))
        ]
        (compared,) = conclude(examples, systems, [scorer], settings_).comparisons
        own = systems[0].estimates["macro_f1"]
        found.append((compared.low, compared.high, compared.p_value, own.low, own.high))
        assert compared.n == own.n == 150
    assert found[0] == pytest.approx(found[1], abs=0.012)
    assert found[0] != found[1]


@given(
    rows_=st.lists(
        st.tuples(st.sets(st.integers(0, 3)), st.sets(st.integers(0, 3))), min_size=1, max_size=12
    )
)
def test_rows_are_of_one_kind_where_labels_and_answers_are_equal(
    rows_: list[tuple[set[int], set[int]]],
) -> None:
    names = ("a", "b", "c", "d")
    truth = rows([tuple(names[i] for i in own) for own, _ in rows_])
    given_ = [
        Prediction(f"row {i}", "", True, 1, labels=tuple(names[j] for j in own))
        for i, (_, own) in enumerate(rows_)
    ]
    kinds = label_rows(names, given_, truth).kinds()
    for i, one in enumerate(rows_):
        for j, other in enumerate(rows_):
            assert (kinds[i] == kinds[j]) == (one == other)
