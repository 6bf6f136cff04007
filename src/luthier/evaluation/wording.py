"""Numbers as people read them: percent, points, nats, and p-values.

A metric's unit decides the form. A share is shown as percent and its differences as percentage
points; a loss keeps three digits. One place, so that terminal, report and verdict agree.
"""

from luthier.evaluation.values import Estimate, Metric


def format_value(metric: Metric, value: float) -> str:
    """A value with its unit: 74.0 %, 61.2, 0.231 nats."""
    number = _bare(metric, value)
    return {"share": f"{number} %", "nats": f"{number} nats"}.get(metric.unit, number)


def format_interval(metric: Metric, low: float | None, high: float | None) -> str:
    """Two limits without unit: 66.4 to 80.4; in words when there are none."""
    if low is None or high is None:
        return "unknown"
    return f"{_bare(metric, low)} to {_bare(metric, high)}"


def format_difference(metric: Metric, difference: float, *, signed: bool = True) -> str:
    """A difference with sign and unit: +70.7 points, -0.512 nats."""
    unit = {"nats": " nats", "plain": ""}.get(metric.unit, " points")
    number = _bare(metric, difference)
    return f"{'+' if signed and not number.startswith('-') else ''}{number}{unit}"


def format_estimate(metric: Metric, estimate: Estimate, confidence: float) -> str:
    """A value with its interval: 74.0 % (95 % interval 66.4 to 80.4)."""
    if estimate.value is None:
        return "unknown"
    if estimate.low is None and estimate.high is None:
        return format_value(metric, estimate.value)
    limits = format_interval(metric, estimate.low, estimate.high)
    return f"{format_value(metric, estimate.value)} ({100 * confidence:g} % interval {limits})"


def format_p(p_value: float) -> str:
    """A p-value to three decimals, never as 0: p < 0.001, p = 0.034."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _bare(metric: Metric, value: float) -> str:
    if metric.unit in ("nats", "plain"):
        return f"{value:z.3f}"
    return f"{100 * value if metric.unit == 'share' else value:z.1f}"
