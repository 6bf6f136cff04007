"""What Prometheus is told: requests, their time, and the jobs in each state."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from luthier.jobs import Jobs

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Figures:
    """The figures of one server."""

    def __init__(self, jobs: Jobs) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "luthier_requests", "Requests answered", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "luthier_request_seconds", "Seconds until a request was answered", ["route"],
            registry=self.registry, buckets=SECONDS,
        )  # fmt: skip
        self.registry.register(_JobStates(jobs))


class _JobStates(Collector):
    """Counted when asked for."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def describe(self) -> Iterable[Metric]:
        """Nothing is counted before anybody asks."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Jobs in each state."""
        family = GaugeMetricFamily("luthier_jobs", "Jobs in each state", labels=["status"])
        for status, count in self._jobs.count().items():
            family.add_metric([status], count)
        yield family
