"""The admin pages: ``/livez``, ``/readyz``, and the counters as Prometheus reads them.

Imported only by a server that has an admin port.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from trio_echo.http import Front, Page, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import Metric

    from trio_echo.server.metrics import Metrics

__all__ = ["Exposition", "admin_front", "render"]


def admin_front(metrics: Metrics, prefix: str, ready: Callable[[], bool]) -> Front:
    """Make the admin pages of one server.

    Args:
        metrics: the server's live counters.
        prefix: its prefix.
        ready: whether it takes new connections; asked at each ``/readyz``.
    """
    exposition = Exposition(metrics, prefix)

    async def livez(_: Request) -> Response:
        return Response(200, b"alive\n")

    async def readyz(_: Request) -> Response:
        return Response(200, b"ready\n") if ready() else Response(503, b"draining\n")

    async def scrape(request: Request) -> Response:
        page, content_type = render(exposition, request.headers.get("accept", ""))
        return Response(200, page, {"Content-Type": content_type})

    pages = {"/livez": Page(livez), "/readyz": Page(readyz), "/metrics": Page(scrape)}
    return Front(pages, "admin")


def render(collector: Collector, accept: str) -> tuple[bytes, str]:
    """Write what is collected now, in the format that a scraper prefers.

    Args:
        collector: what to write.
        accept: the scraper's ``Accept`` header; OpenMetrics is written where
            that names it, else the Prometheus text format.

    Returns:
        The page and its content type.
    """
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:
        # It compares versions as tuples and trips over one that is no number.
        encode, content_type = choose_encoder("")
    return encode(collector), content_type


class Exposition(Collector):
    """One server's counters, collected at the moment of a scrape.

    It stands for itself and joins no registry: several servers may run in one
    process, and each shows its own numbers.

    Args:
        metrics: the live counters.
        prefix: the server's prefix, any text.
    """

    def __init__(self, metrics: Metrics, prefix: str) -> None:
        self._metrics = metrics
        self._info = {"version": version("trio-echo"), "prefix": prefix}

    def collect(self) -> Iterator[Metric]:
        """Read every counter, in one go: the families of a page fit together."""
        metrics = self._metrics
        yield InfoMetricFamily("trio_echo", "The server.", value=self._info)
        accepted = CounterMetricFamily(
            "trio_echo_connections", "Connections accepted.", labels=["port", "tls"]
        )
        for (port, tls), count in metrics.accepted.items():
            accepted.add_metric([str(port), str(tls).lower()], count)
        yield accepted
        yield GaugeMetricFamily(
            "trio_echo_connections_open", "Connections open now.", value=metrics.open
        )
        ended = CounterMetricFamily(
            "trio_echo_connections_closed", "Connections that ended.", labels=["reason"]
        )
        for reason, count in metrics.ended.items():
            ended.add_metric([reason], count)
        yield ended
        yield CounterMetricFamily("trio_echo_lines", "Lines answered.", value=metrics.lines)
        yield CounterMetricFamily(
            "trio_echo_received_bytes", "Bytes received from clients.", value=metrics.received_bytes
        )
        yield CounterMetricFamily(
            "trio_echo_sent_bytes", "Bytes sent to clients.", value=metrics.sent_bytes
        )
