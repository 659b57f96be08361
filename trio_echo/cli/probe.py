"""``trio-echo probe``: the judge of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer

from trio_echo.cli.options import (
    EACH,
    EFFORT,
    EXPECTED,
    AlphaOption,
    CertOption,
    ExpectOption,
    GitHubOption,
    IdentifyCertOption,
    IdentifyOption,
    JSONOption,
    JUnitOption,
    KeyOption,
    MarginOption,
    PNGOption,
    ProxyOption,
    SendOption,
    SNIOption,
    SourceOption,
    SVGOption,
    TimeoutOption,
    TLSCAOption,
    TLSOption,
    ToleranceOption,
    option,
)
from trio_echo.cli.output import Output, Words
from trio_echo.cli.signals import received
from trio_echo.cli.tally import follow
from trio_echo.errors import ConfigError
from trio_echo.prober.config import (
    DEFAULT_CONNECTIONS,
    DEFAULT_LOOK,
    ProbeConfig,
    ProbeTLS,
    parse_expectation,
)
from trio_echo.prober.dialogue import unescape
from trio_echo.prober.schedule import probe as run_probe
from trio_echo.prober.split import DEFAULT_ALPHA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report

__all__ = ["dialogue_settings", "probe", "stop_on_signal", "tls_settings"]


def probe(
    target: Annotated[
        str,
        typer.Argument(metavar="HOST:PORT", help="The address to probe, such as localhost:31400."),
    ],
    *,
    expect: ExpectOption = None,
    margin: MarginOption = None,
    tolerance: ToleranceOption = 0.0,
    alpha: AlphaOption = DEFAULT_ALPHA,
    max_errors: Annotated[
        int | None,
        option(
            EXPECTED,
            "N",
            "Accept N failed connections. [default: 0 with --expect, else any number]",
        ),
    ] = None,
    connections: Annotated[
        int | None,
        option(
            EFFORT,
            "N",
            "Open at most N connections. [default: what a right split needs,"
            f" {DEFAULT_CONNECTIONS} without --expect, no limit with --duration]",
        ),
    ] = None,
    duration: Annotated[
        float | None, option(EFFORT, "SECONDS", "Open no connection after this time.")
    ] = None,
    concurrency: Annotated[
        int | None,
        option(
            EFFORT,
            "N",
            "Keep at most N connections open at a time. [default: 16, 256 with --rate]",
            "-c",
            "--concurrency",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        option(
            EFFORT,
            "N",
            "Start N connections per second, whether or not earlier ones have ended.",
        ),
    ] = None,
    timeout: TimeoutOption = 5.0,
    wait: Annotated[
        float,
        option(EFFORT, "SECONDS", "Wait this long for a first answer before the probe begins."),
    ] = 0.0,
    second_look: Annotated[
        int,
        option(
            EFFORT,
            "N",
            "After a failure, open up to N connections more to find its cause; 0 for none.",
        ),
    ] = DEFAULT_LOOK,
    lines: Annotated[int, option(EACH, "N", "Send N lines on each connection.")] = 1,
    half_close: Annotated[
        bool,
        option(
            EACH,
            None,
            "End the sending side after the lines, and expect the end of file.",
            "--half-close",
        ),
    ] = False,
    payload_size: Annotated[
        int | None, option(EACH, "BYTES", "Send lines of this length, LF not counted.")
    ] = None,
    source_address: SourceOption = None,
    send: SendOption = None,
    identify: IdentifyOption = None,
    identify_cert: IdentifyCertOption = None,
    proxy_protocol: ProxyOption = None,
    tls: TLSOption = False,
    tls_ca: TLSCAOption = None,
    sni: SNIOption = None,
    tls_cert: CertOption = None,
    tls_key: KeyOption = None,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
    png: PNGOption = None,
    github: GitHubOption = None,
) -> None:
    r"""Open connections, count who answers, and judge the split.

    It stops as soon as the verdict is certain. After a failure, some
    connections more, which are not judged, find out why: as the probe makes
    them, or where nobody answered, with TLS or a PROXY header that it was not
    told to send. --second-look 0 leaves them out.

    Exit codes: 0 PASS, or nothing was expected; 1 FAIL; 2 wrong usage;
    3 INCONCLUSIVE; 4 could not measure or could not write; 70 a fault of
    trio-echo; 130 interrupted.

    Examples:
    trio-echo probe localhost:31400 --expect one=80,two=20
    trio-echo probe gateway:443 --tls --json report.json
    trio-echo probe redis:6379 --send 'INFO\r\n' --identify 'tcp_port:(\d+)'
    """
    config = ProbeConfig(
        target=target,
        expect=parse_expectation("expect", expect or ()),
        connections=connections,
        duration=duration,
        concurrency=concurrency,
        rate=rate,
        margin=margin,
        tolerance=tolerance,
        alpha=alpha,
        timeout=timeout,
        wait=wait,
        max_errors=max_errors,
        second_look=second_look,
        lines=lines,
        half_close=half_close,
        payload_size=payload_size,
        source_addresses=source_address or (),
        tls=tls_settings(tls, tls_ca, sni, tls_cert, tls_key),
        **dialogue_settings(send, identify, identify_cert, proxy_protocol),
    )
    if not config.expect and (margin is not None or tolerance or alpha != DEFAULT_ALPHA):
        raise ConfigError("expect", "must be given too, for --margin, --tolerance and --alpha")
    output = Output(json, junit, svg, png, github=github)
    if config.expect and connections is None and duration is None:
        announced = (
            f"up to {config.budget} connections: a right split is decided by then "
            "with a chance of 99.9 %"
        )
        Words(stderr=True).print(announced)
    raise typer.Exit(output.end(output.publish(trio.run(_measure, config))))


def dialogue_settings(
    send: str | None, identify: str | None, identify_cert: str | None, proxy_protocol: str | None
) -> dict[str, Any]:
    """How backends are made to tell their names, as `ProbeConfig` takes it."""
    return {
        "send": None if send is None else unescape(send),
        "identify": identify,
        "identify_cert": identify_cert,
        "proxy_protocol": proxy_protocol,
    }


def tls_settings(
    wanted: bool, ca: Path | None, sni: str | None, cert: Path | None, key: Path | None
) -> ProbeTLS | None:
    """TLS as the options have it; each of them alone asks for it."""
    if not wanted and {ca, sni, cert, key} == {None}:
        return None
    return ProbeTLS(ca=ca, server_name=sni, cert=cert, key=key)


async def _measure(config: ProbeConfig) -> Report:
    """Probe with a live tally; a signal ends it with what there is."""
    refused: ConfigError | None = None
    report: Report | None = None
    with received() as signals:
        async with trio.open_nursery() as nursery:

            def watch(tally: Tally) -> None:
                nursery.start_soon(stop_on_signal, signals, tally)
                nursery.start_soon(follow, tally)

            # A refusal that left through the nursery would come out as a group.
            try:
                report = await run_probe(config, watch=watch)
            except ConfigError as error:
                refused = error
            nursery.cancel_scope.cancel()
    if report is None:
        raise refused or AssertionError
    return report


async def stop_on_signal(signals: AsyncIterator[int], tally: Tally) -> None:
    """Stop the probe at the first signal."""
    async for _ in signals:
        tally.stop()
