"""``trio-echo probe``: the judge of a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from trio_echo.cli.output import JSONOption, JUnitOption, Output, SVGOption, Words
from trio_echo.cli.signals import received
from trio_echo.cli.tally import follow
from trio_echo.errors import ConfigError
from trio_echo.prober.config import DEFAULT_CONNECTIONS, ProbeConfig, ProbeTLS
from trio_echo.prober.schedule import probe as run_probe
from trio_echo.prober.split import DEFAULT_ALPHA
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report

__all__ = [
    "CertOption",
    "ExpectOption",
    "KeyOption",
    "MarginOption",
    "SNIOption",
    "SourceOption",
    "TLSCAOption",
    "TLSOption",
    "TimeoutOption",
    "ToleranceOption",
    "parse_expectation",
    "probe",
    "stop_on_signal",
    "tls_settings",
]

ExpectOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=WEIGHT",
        help="A backend and its weight. Repeat it, or separate several by commas.",
    ),
]

MarginOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="A share that is off by this much or more does not pass. "
        "[default: 0.05, or half the smallest share if that is less]",
        show_default=False,
    ),
]
ToleranceOption = Annotated[
    float,
    typer.Option(metavar="SHARE", help="A share that is off by this much or less does not fail."),
]
TimeoutOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="For connecting, and again for each answer.")
]
SourceOption = Annotated[
    list[str] | None, typer.Option(metavar="IP", help="Connect from here; several take turns.")
]
TLSOption = Annotated[bool, typer.Option("--tls", help="Speak TLS, verified.")]
TLSCAOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Authorities to trust; implies --tls.")
]
SNIOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Server name to ask for; implies --tls.")
]
CertOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Own certificate; implies --tls.")
]
KeyOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Its private key, if not in --tls-cert.")
]


def probe(
    target: Annotated[str, typer.Argument(metavar="HOST:PORT", help="What to probe.")],
    *,
    expect: ExpectOption = None,
    connections: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Spend at most so many connections. [default: what a right split needs, "
            f"{DEFAULT_CONNECTIONS} without --expect, no limit with --duration]",
            show_default=False,
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Launch none after so many seconds.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "-c",
            "--concurrency",
            metavar="N",
            help="Connections in flight at most. [default: 16, 256 with --rate]",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Start N connections per second, whether or not earlier ones have ended.",
        ),
    ] = None,
    margin: MarginOption = None,
    tolerance: ToleranceOption = 0.0,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="CHANCE", help="Accepted chance of a wrong PASS, and of a wrong FAIL."
        ),
    ] = DEFAULT_ALPHA,
    timeout: TimeoutOption = 5.0,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", help="First wait so long for an echo to come back.")
    ] = 0.0,
    max_errors: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Accept so many failed connections. [default: 0 with --expect, else any]",
            show_default=False,
        ),
    ] = None,
    lines: Annotated[int, typer.Option(metavar="N", help="Lines on each connection.")] = 1,
    half_close: Annotated[
        bool, typer.Option("--half-close", help="Shut the sending side; ask for the end of file.")
    ] = False,
    payload_size: Annotated[
        int | None, typer.Option(metavar="BYTES", help="Length of each line before LF.")
    ] = None,
    source_address: SourceOption = None,
    tls: TLSOption = False,
    tls_ca: TLSCAOption = None,
    sni: SNIOption = None,
    tls_cert: CertOption = None,
    tls_key: KeyOption = None,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
) -> None:
    """Open connections, count who answers, and judge the split.

    Exit code: 0 PASS (or nothing expected), 1 FAIL, 2 usage, 3 INCONCLUSIVE,
    4 could not measure, 130 interrupted.
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
        lines=lines,
        half_close=half_close,
        payload_size=payload_size,
        source_addresses=source_address or (),
        tls=tls_settings(tls, tls_ca, sni, tls_cert, tls_key),
    )
    output = Output(json, junit, svg)
    if config.expect and connections is None and duration is None:
        announced = (
            f"up to {config.budget} connections: a right split is decided by then "
            "with a chance of 99.9 %"
        )
        Words(stderr=True).print(announced)
    raise typer.Exit(output.end(output.publish(trio.run(_measure, config))))


def tls_settings(
    wanted: bool, ca: Path | None, sni: str | None, cert: Path | None, key: Path | None
) -> ProbeTLS | None:
    """TLS as the options have it; each of them alone asks for it."""
    if not wanted and {ca, sni, cert, key} == {None}:
        return None
    return ProbeTLS(ca=ca, server_name=sni, cert=cert, key=key)


def parse_expectation(field: str, values: Sequence[str]) -> dict[str, float]:
    """Read ``NAME=WEIGHT`` or several of them separated by commas.

    A name may be empty or contain ``=``, and a comma where what is before it ends
    in no weight: ``a,b=1`` is one backend.

    Raises:
        ConfigError: one is of another form, or a name comes twice.
    """
    expect: dict[str, float] = {}
    for value in values:
        parts = value.split(",")
        for pair in parts if None not in map(_weight, parts) else [value]:
            name = pair.rpartition("=")[0]
            weight = _weight(pair)
            if weight is None:
                shown = printable(pair)
                raise ConfigError(field, f"must be NAME=WEIGHT, such as one=80, got '{shown}'")
            if name in expect:
                raise ConfigError(field, f"names '{printable(name)}' twice")
            expect[name] = weight
    return expect


def _weight(pair: str) -> float | None:
    """The weight in ``NAME=WEIGHT``; None where it has another form."""
    _, equals, weight = pair.rpartition("=")
    try:
        return float(weight.removesuffix("%")) if equals else None
    except ValueError:
        return None


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
