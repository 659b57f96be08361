"""What Prometheus reads at a gate: the gate's own counters, and a probe of a scrape."""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from math import inf
from typing import TYPE_CHECKING

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from trio_echo.monitor.exposition import share_families
from trio_echo.prober.counts import Outcome
from trio_echo.prober.remarks import shown_name
from trio_echo.prober.split import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from trio_echo.monitor.gate import Finding

__all__ = ["GateMetrics", "Scraped"]


_BOUNDS = {str(bound): bound for bound in (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0)} | {
    "+Inf": inf
}
"""Seconds at which the buckets of a probe's duration end."""


class GateMetrics(Collector):
    """The counters of one gate.

    Attributes:
        requests: those for a probe, by path, status and verdict.
        running: probes that run now.
        waiting: requests that wait for their turn.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int, str]] = Counter()
        self.running = 0
        self.waiting = 0
        self._connections = 0
        self._seconds: dict[str, list[float]] = {}
        self._sums: dict[str, float] = {}

    def take(self, path: str, finding: Finding) -> None:
        """Count a probe that has ended."""
        settling = finding.settling
        self._connections += finding.report.counts.launched
        self._connections += 0 if settling is None else settling.connections
        buckets = self._seconds.setdefault(path, [0.0] * len(_BOUNDS))
        for place, bound in enumerate(_BOUNDS.values()):
            buckets[place] += finding.took <= bound
        self._sums[path] = self._sums.get(path, 0.0) + finding.took

    def collect(self) -> Iterator[Metric]:
        """Read everything in one go: the families of a page fit together."""
        yield InfoMetricFamily(
            "trio_echo_gate", "The gate.", value={"version": version("trio-echo")}
        )
        requests = CounterMetricFamily(
            "trio_echo_gate_requests",
            "Requests for a probe; status 499 is a client that went away.",
            labels=["path", "status", "verdict"],
        )
        for (path, status, verdict), count in self.requests.items():
            requests.add_metric([path, str(status), verdict], count)
        yield requests
        yield GaugeMetricFamily(
            "trio_echo_gate_probes_running", "Probes that run now.", value=self.running
        )
        yield GaugeMetricFamily(
            "trio_echo_gate_requests_waiting", "Requests that wait for a probe.", value=self.waiting
        )
        yield CounterMetricFamily(
            "trio_echo_gate_connections", "Connections made to targets.", value=self._connections
        )
        seconds = HistogramMetricFamily(
            "trio_echo_gate_probe_seconds",
            "Seconds of a probe, with the wait for a new split and without the queue.",
            labels=["path"],
        )
        for path, buckets in self._seconds.items():
            cells = list(zip(_BOUNDS, buckets, strict=True))
            seconds.add_metric([path], cells, sum_value=self._sums[path])
        yield seconds


class Scraped(Collector):
    """One probe as Prometheus reads it: what `blackbox_exporter` tells, and the shares.

    Everything is a gauge: the next scrape is another probe.
    """

    def __init__(self, finding: Finding) -> None:
        self._finding = finding

    def collect(self) -> Iterator[Metric]:
        """Tell everything."""
        report = self._finding.report
        yield GaugeMetricFamily(
            "probe_success",
            "Whether the split is as expected: the verdict is PASS.",
            value=report.verdict is Verdict.PASS,
        )
        yield GaugeMetricFamily(
            "probe_duration_seconds", "Seconds that the probe took.", value=self._finding.took
        )
        verdicts = GaugeMetricFamily(
            "trio_echo_probe_verdict", "1 for the verdict of this probe.", labels=["verdict"]
        )
        for verdict in Verdict:
            verdicts.add_metric([verdict], verdict is report.verdict)
        yield verdicts
        answers = GaugeMetricFamily(
            "trio_echo_probe_connections", "Connections answered.", labels=["backend"]
        )
        for backend in report.backends:
            answers.add_metric([shown_name(backend.name)], backend.connections)
        yield answers
        yield from share_families("trio_echo_probe", report.backends)
        failures = GaugeMetricFamily(
            "trio_echo_probe_failures", "Connections that failed.", labels=["outcome"]
        )
        for outcome in Outcome:
            if outcome is not Outcome.OK:
                failures.add_metric([outcome], report.counts.outcomes[outcome])
        yield failures
