"""How often 95 % intervals hold the truth, and how often tests find a difference where none is.

    python -m benchmarks.coverage          # some minutes on one core; writes results/coverage.json

Every interval and test that `luthier.evaluation` makes is simulated as it is used: rates by
Wilson, differences of paired rates by Tango and McNemar, means by Student's t or BCa and by t or
sign flips, rows in groups by their clustered versions. The same draws are given to the percentile
bootstrap and the normal approximation, for comparison.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import typer
from scipy import stats

from luthier.evaluation.clusters import (
    clustered,
    clustered_mean,
    clustered_rate,
    clustered_test,
)
from luthier.evaluation.statistics import (
    Interval,
    mcnemar,
    mean_interval,
    mean_test,
    tango,
    wilson,
)

LEVEL, ALIKE = 0.95, 0.3
"""Confidence, and the correlation of rows within a group."""
RESAMPLES = 1000
PLACE = Path(__file__).parent / "results" / "coverage.json"
Draws = np.random.Generator
Numbers = npt.NDArray[np.float64]
Limits = tuple[float | None, float | None]


@dataclass(frozen=True)
class Case:
    """Something drawn again and again: what it is, the truth, and what is said each time."""

    what: str
    n: str
    truth: float
    draw: Callable[[Draws], tuple[dict[str, Limits], float | None]]
    """Limits of each method, ours first, and our p-value."""


def limits(interval: Interval) -> Limits:
    return interval.low, interval.high


def wald(values: Numbers) -> Limits:
    half = stats.norm.ppf((1 + LEVEL) / 2) * values.std() / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def percentile(values: Numbers, rng: Draws, groups: npt.NDArray[np.intp] | None = None) -> Limits:
    units = np.arange(len(values)) if groups is None else groups
    sums, counts = np.bincount(units, weights=values), np.bincount(units)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    means = (drawn @ sums) / np.maximum(drawn @ counts, 1)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def rate(p: float, n: int) -> Case:
    def draw(rng: Draws) -> tuple[dict[str, Limits], float | None]:
        values = (rng.random(n) < p).astype(np.float64)
        ours = limits(wilson(int(values.sum()), n, LEVEL))
        return {"ours": ours, "normal": wald(values), "percentile": percentile(values, rng)}, None

    return Case(f"rate {p}: Wilson", str(n), p, draw)


def paired_rates(up: float, down: float, n: int) -> Case:
    def draw(rng: Draws) -> tuple[dict[str, Limits], float | None]:
        drawn = rng.choice([1.0, -1.0, 0.0], n, p=[up, down, 1 - up - down])
        fixed, broken = int((drawn > 0).sum()), int((drawn < 0).sum())
        ours = limits(tango(fixed, broken, n, LEVEL))
        found = {"ours": ours, "normal": wald(drawn), "percentile": percentile(drawn, rng)}
        return found, mcnemar(fixed, broken).p_value

    return Case(f"paired rates, {up} fixed, {down} broken: Tango, McNemar", str(n), up - down, draw)


def mean(name: str, sample: Callable[[Draws, int], Numbers], truth: float, n: int) -> Case:
    def draw(rng: Draws) -> tuple[dict[str, Limits], float | None]:
        values = sample(rng, n)
        ours = limits(mean_interval(list(values), LEVEL, RESAMPLES, rng))
        found = {"ours": ours, "normal": wald(values), "percentile": percentile(values, rng)}
        p_value = mean_test(list(values), RESAMPLES, rng).p_value if truth == 0 else None
        return found, p_value

    method = "Student's t" if n >= 100 else "BCa, sign flips"
    return Case(f"mean of {name}: {method}", str(n), truth, draw)


def grouped(p: float, num_groups: int, *, is_paired: bool) -> Case:
    """Rows, 1 to 9 a group, alike within it; paired: two systems that share half of the luck."""
    strength = (1 - ALIKE) / ALIKE

    def draw(rng: Draws) -> tuple[dict[str, Limits], float | None]:
        counts = rng.integers(1, 10, num_groups)
        groups = np.repeat(np.arange(num_groups), counts)
        luck = rng.beta(p * strength, (1 - p) * strength, (3, num_groups))
        if not is_paired:
            values = (rng.random(len(groups)) < luck[0][groups]).astype(np.float64)
            found = clustered(values.tolist(), groups.astype(str).tolist())
            ours = limits(clustered_rate(found, LEVEL))
            naive = limits(wilson(int(values.sum()), len(values), LEVEL))
            p_value = None
        else:
            first, second = (luck[0] + luck[1]) / 2, (luck[0] + luck[2]) / 2
            passed = [rng.random(len(groups)) < own[groups] for own in (first, second)]
            values = passed[0].astype(np.float64) - passed[1]
            names = groups.astype(str).tolist()
            ours = limits(clustered_mean(clustered(values.tolist(), names), LEVEL))
            fixed, broken = int((values > 0).sum()), int((values < 0).sum())
            naive = limits(tango(fixed, broken, len(values), LEVEL))
            p_value = clustered_test(values.tolist(), names, RESAMPLES, rng).p_value
        others = {"rows as if alone": naive, "percentile": percentile(values, rng, groups)}
        return {"ours": ours, **others}, p_value

    kind = "paired rates in groups: clustered t" if is_paired else f"rate {p} in groups: Wilson"
    return Case(kind, f"{num_groups} groups", 0.0 if is_paired else p, draw)


def cases() -> Iterator[Case]:
    for p in (0.5, 0.8, 0.95):
        for n in (10, 30, 100, 300):
            yield rate(p, n)
    for up, down in ((0.1, 0.1), (0.2, 0.05), (0.05, 0.05)):
        for n in (20, 50, 150, 500):
            yield paired_rates(up, down, n)
    for n in (10, 30, 80, 150):
        yield mean("normal differences", lambda rng, n: rng.normal(0, 1, n), 0.0, n)
        yield mean("skewed scores", lambda rng, n: rng.beta(8, 1, n), 8 / 9, n)
    for num_groups in (10, 20, 40, 100):
        yield grouped(0.8, num_groups, is_paired=False)
        yield grouped(0.95, num_groups, is_paired=False)
        yield grouped(0.8, num_groups, is_paired=True)


def simulate(case: Case, repeats: int, seed: int) -> dict[str, object]:
    """Shares of repeats whose interval holds the truth, and whose test finds a difference."""
    rng = np.random.default_rng(seed)
    covered: dict[str, int] = {}
    rejected, tested = 0, 0
    for _ in range(repeats):
        found, p_value = case.draw(rng)
        for name, (low, high) in found.items():
            # An interval that ends at the truth holds it, up to rounding.
            is_in = low is not None and high is not None and low - 1e-9 <= case.truth <= high + 1e-9
            covered[name] = covered.get(name, 0) + is_in
        if p_value is not None:
            tested, rejected = tested + 1, rejected + (p_value < 1 - LEVEL)
    shares = {name: number / repeats for name, number in covered.items()}
    is_null = tested and case.truth == 0
    return {
        "case": case.what, "n": case.n, "covered": shares,
        "false_positives": rejected / tested if is_null else None,
    }  # fmt: skip


def main(repeats: int = 2000, seed: int = 0) -> None:
    """Simulate every case, print a table, and write the results."""
    results = []
    for case in cases():
        result = simulate(case, repeats, seed)
        results.append(result)
        typer.echo(json.dumps(result))
    PLACE.write_text(json.dumps({"repeats": repeats, "seed": seed, "cases": results}, indent=1))


if __name__ == "__main__":
    typer.run(main)
