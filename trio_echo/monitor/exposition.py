"""What a watch shows over HTTP: a page for people, and metrics for Prometheus."""

from __future__ import annotations

from importlib.metadata import version
from math import exp, log
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from trio_echo.http import Front, Page, Request, Response
from trio_echo.monitor.picture import PAGE_POLICY, fragment, page, to_svg
from trio_echo.prober.counts import Outcome
from trio_echo.prober.latency import BUCKET_RATIO, SHORTEST
from trio_echo.prober.remarks import shown_name
from trio_echo.prober.split import Verdict
from trio_echo.server.admin import render
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import Metric

    from trio_echo.monitor.record import Record
    from trio_echo.prober.latency import Histogram
    from trio_echo.prober.split import Interval

__all__ = ["Exposition", "share_families", "watch_front"]

_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds at which the buckets of a latency end."""


def watch_front(record: Record) -> Front:
    """Make the pages of a watch: ``/`` and what it loads, ``/metrics``, ``/livez``, ``/readyz``."""
    exposition = Exposition(record)

    def html(make: Callable[[Record], str], kind: str) -> Page:
        async def answer(_: Request) -> Response:
            headers = {
                "Content-Type": f"{kind}; charset=utf-8",
                "Content-Security-Policy": PAGE_POLICY,
                "X-Content-Type-Options": "nosniff",
            }
            # A lone surrogate is escaped wherever a name is shown; the target is not foreign.
            return Response(200, make(record).encode(errors="replace"), headers)

        return Page(answer)

    async def scrape(request: Request) -> Response:
        body, content_type = render(exposition, request.headers.get("accept", ""))
        return Response(200, body, {"Content-Type": content_type})

    async def well(_: Request) -> Response:
        return Response(200, b"watching\n")

    return Front(
        {
            "/": html(page, "text/html"),
            "/live": html(fragment, "text/html"),
            "/timeline.svg": html(to_svg, "image/svg+xml"),
            "/metrics": Page(scrape),
            "/livez": Page(well),
            "/readyz": Page(well),
        },
        "watch",
    )


class Exposition(Collector):
    """One watch's counters and gauges, collected at the moment of a scrape.

    Args:
        record: what the watch has seen, live.
    """

    def __init__(self, record: Record) -> None:
        self._record = record

    def collect(self) -> Iterator[Metric]:
        """Read everything in one go: the families of a page fit together."""
        record = self._record
        info = {"version": version("trio-echo"), "target": printable(record.target)}
        yield InfoMetricFamily("trio_echo_watch", "The watch.", value=info)
        answers = CounterMetricFamily(
            "trio_echo_watch_connections", "Connections answered.", labels=["backend"]
        )
        for share in record.shares:
            answers.add_metric([shown_name(share.name)], share.answers)
        yield answers
        yield from share_families("trio_echo_watch", record.shares)
        failures = CounterMetricFamily(
            "trio_echo_watch_failures", "Connections that failed.", labels=["outcome"]
        )
        lost = CounterMetricFamily(
            "trio_echo_watch_held_lost", "Held connections that were lost.", labels=["reason"]
        )
        for outcome in Outcome:
            if outcome is not Outcome.OK:
                failures.add_metric([outcome], record.counts.outcomes[outcome])
                lost.add_metric([outcome], record.lost[outcome])
        yield from (failures, lost)
        yield GaugeMetricFamily(
            "trio_echo_watch_held", "Held connections that are open.", value=record.held
        )
        verdict = GaugeMetricFamily(
            "trio_echo_watch_verdict",
            "1 for what the connections since the last change prove, 0 for the others; FAIL "
            "while many fail.",
            labels=["verdict"],
        )
        for each in Verdict:
            verdict.add_metric([each], each is record.verdict)
        yield verdict
        yield CounterMetricFamily(
            "trio_echo_watch_changes", "Changes of the split that were found.", value=record.changes
        )
        yield GaugeMetricFamily(
            "trio_echo_watch_evidence",
            "The evidence for a change, as a part of what makes an alarm.",
            value=record.detector.evidence * record.detector.false_alarms,
        )
        yield GaugeMetricFamily(
            "trio_echo_watch_window_connections",
            "Connections in the sliding window.",
            value=record.window,
        )
        for name, what, histograms in (
            ("connect", "until a connection could be written to", record.counts.connect),
            ("answer", "from the first line's sending to its answer", record.counts.answer),
        ):
            family = HistogramMetricFamily(
                f"trio_echo_watch_{name}_seconds", f"Seconds {what}.", labels=["backend"]
            )
            for backend, histogram in histograms.items():
                buckets, total = _buckets(histogram)
                family.add_metric([shown_name(backend)], buckets, sum_value=total)
            yield family


class _Share(Protocol):
    """One backend: as it calls itself, and its shares from 0 to 1."""

    @property
    def name(self) -> str: ...
    @property
    def expected(self) -> float | None: ...
    @property
    def share(self) -> float: ...
    @property
    def interval(self) -> Interval: ...


def share_families(prefix: str, shares: Iterable[_Share]) -> Iterator[Metric]:
    """Gauges of the expected shares, those of the sample, and the ends of their intervals."""
    expected, sample, low, high = families = [
        GaugeMetricFamily(f"{prefix}_{name}", text, labels=["backend"])
        for name, text in (
            ("expected_share", "The share that is expected."),
            ("share", "The share of the connections of the sample."),
            ("share_low", "The lower end of the interval of the true share."),
            ("share_high", "The upper end of the interval of the true share."),
        )
    ]
    for share in shares:
        labels = [shown_name(share.name)]
        sample.add_metric(labels, share.share)
        low.add_metric(labels, share.interval.low)
        high.add_metric(labels, share.interval.high)
        if share.expected is not None:
            expected.add_metric(labels, share.expected)
    return iter(families)


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts at the bounds, and the sum of all durations to half a percent.

    A duration counts as below a bound if the lower end of its fine bucket is:
    it is put too low by a hundredth of its value at most.
    """
    found = []
    for bound in _BOUNDS:
        last = log(bound / SHORTEST) / log(BUCKET_RATIO)
        below = sum(count for bucket, count in histogram.buckets.items() if bucket < last)
        found.append((str(bound), float(below)))
    found.append(("+Inf", float(histogram.count)))
    total = sum(
        count * SHORTEST * exp((bucket + 0.5) * log(BUCKET_RATIO))
        for bucket, count in histogram.buckets.items()
    )
    return found, total
