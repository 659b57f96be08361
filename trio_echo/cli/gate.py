"""``trio-echo gate``: the judge behind HTTP."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path  # noqa: TC003 - typer reads the annotations at run time
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from trio_echo.cli.listening import as_trio, listen_on, parse_listen, url_of
from trio_echo.cli.logs import LogFormat, LogLevel, logging_to
from trio_echo.cli.options import option
from trio_echo.cli.output import ExitCode
from trio_echo.cli.signals import expect, received
from trio_echo.log import Log
from trio_echo.monitor.gate import Gate
from trio_echo.monitor.request import Allowed, Terms
from trio_echo.prober.config import ProbeTLS
from trio_echo.prober.exchange import tls_context
from trio_echo.prober.split import MOST_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["gate"]

_log = Log()

_WHO = "Where it listens, and what it probes"
_LOAD = "How much it takes on"
_REQUEST = "How much a request may ask for"
_TLS = "TLS towards targets, for requests that say tls or sni"
_LOG = "Log, on stderr"


def gate(
    *,
    listen: Annotated[str, option(_WHO, "[HOST:]PORT", "Serve HTTP here; 0 for any free port.")],
    allow: Annotated[
        list[str] | None,
        option(
            _WHO,
            "HOST:PORT",
            "Probe such targets and no others; * is any label, or any port. Repeat it.",
        ),
    ] = None,
    concurrency: Annotated[int, option(_LOAD, "N", "Run at most N probes at a time.")] = 4,
    queue: Annotated[
        int, option(_LOAD, "N", "Let at most N requests wait; refuse more with 503.")
    ] = 16,
    drain_timeout: Annotated[
        float,
        option(
            _LOAD, "SECONDS", "After SIGTERM or SIGINT, give probes this long, then cut the rest."
        ),
    ] = 20.0,
    max_connections: Annotated[
        int, option(_REQUEST, "N", "Open at most N connections for a verdict.")
    ] = MOST_CONNECTIONS,
    max_in_flight: Annotated[
        int, option(_REQUEST, "N", "Keep at most N connections open at a time.")
    ] = 256,
    max_rate: Annotated[
        float, option(_REQUEST, "N", "Start at most N connections per second.")
    ] = 1000.0,
    max_seconds: Annotated[
        float, option(_REQUEST, "SECONDS", "Take at most this long, the queue not counted.")
    ] = 60.0,
    tls_ca: Annotated[Path | None, option(_TLS, "FILE", "Trust these authorities, in PEM.")] = None,
    tls_cert: Annotated[
        Path | None, option(_TLS, "FILE", "Present this certificate, in PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None,
        option(_TLS, "FILE", "Private key, in PEM, if --tls-cert does not hold it."),
    ] = None,
    log_format: Annotated[
        LogFormat,
        option(_LOG, "console|json", "Log each event as a line of text, or as a JSON object."),
    ] = LogFormat.CONSOLE,
    log_level: Annotated[
        LogLevel,
        option(_LOG, "LEVEL", "Log this level and those above: debug, info, warning, error."),
    ] = LogLevel.INFO,
) -> None:
    """Probe on request over HTTP: for Argo Rollouts, Flagger, Prometheus, curl.

    POST /v1/probe takes JSON and answers with the report. POST /flagger takes
    Flagger's webhooks. GET /probe is scraped as blackbox_exporter is. /livez,
    /readyz and /metrics are for the platform.

    SIGTERM or Ctrl-C drains: requests that have come are carried out, then it
    exits with 0, or with 1 if it had to cut some. A second signal cuts at once.

    Examples:
    trio-echo gate --listen 8080 --allow '*.svc.cluster.local:9000'
    trio-echo gate --listen 127.0.0.1:8080 --allow 'localhost:*'
    """
    tls = ProbeTLS(ca=tls_ca, cert=tls_cert, key=tls_key)
    terms = Terms(
        allow=[Allowed(pattern) for pattern in allow or ()],
        max_connections=max_connections,
        max_in_flight=max_in_flight,
        max_rate=max_rate,
        max_seconds=max_seconds,
        tls=tls,
    )
    running = Gate(terms, concurrency=concurrency, queue=queue, drain_timeout=drain_timeout)
    tls_context(tls, None)  # a file that cannot be used is found out now
    place = parse_listen(listen)
    expect()  # a signal drains
    with logging_to(log_format, log_level):
        code = trio.run(_serve, place, running)
    raise typer.Exit(code)


async def _serve(place: tuple[str, int], gate: Gate) -> int:
    """Serve; the first SIGINT or SIGTERM drains, the second cuts. Return the exit code."""
    with ExitStack() as sockets, received() as signals:
        listeners = await listen_on(place)
        for listener in listeners:
            sockets.enter_context(listener.sock)
            _log.info("gate", address=str(listener), url=url_of(listener))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signals, signals, gate)
            await gate.serve(map(as_trio, listeners))
            nursery.cancel_scope.cancel()
    return ExitCode.FAIL if gate.cut_requests else ExitCode.PASS


async def _end_on_signals(signals: AsyncIterator[int], gate: Gate) -> None:
    """Drain at the first signal, cut at the next."""
    async for _ in signals:
        if gate.ready:
            _log.info("draining", requests=gate.requests)
            gate.drain()
        else:
            gate.cut()
