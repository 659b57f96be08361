"""``trio-echo rehearse``: a route on this machine, with a real Envoy."""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import structlog
import trio
import typer

from trio_echo.cli.output import Files, JSONOption, JUnitOption, SVGOption, publish
from trio_echo.cli.probe import parse_expectation
from trio_echo.cli.tally import follow
from trio_echo.errors import ConfigError
from trio_echo.prober import ProbeConfig
from trio_echo.prober.config import DEFAULT_CONNECTIONS
from trio_echo.prober.split import DEFAULT_ALPHA, DEFAULT_MARGIN
from trio_echo.rehearsal import RehearsalError, built_in, courses, find_envoy, judge, open_stage
from trio_echo.rehearsal.errors import one_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from trio_echo.prober import Report, Tally
    from trio_echo.rehearsal import Course, CrossCheck, Route, Stage

__all__ = ["rehearse"]

_UNMEASURED = 4
_INTERRUPTED = 130


def rehearse(
    *,
    weights: Annotated[
        str,
        typer.Option(metavar="NAME=WEIGHT,...", help="The backends of the built-in route."),
    ] = "one=80,two=20",
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WEIGHT",
            help="Expect this instead of what the route says; once for each backend.",
        ),
    ] = None,
    connections: Annotated[
        int, typer.Option(metavar="N", help="Spend at most so many connections.")
    ] = DEFAULT_CONNECTIONS,
    concurrency: Annotated[
        int, typer.Option("-c", "--concurrency", metavar="N", help="Connections in flight at most.")
    ] = 16,
    margin: Annotated[
        float, typer.Option(help="How far a share may be off and still pass.")
    ] = DEFAULT_MARGIN,
    alpha: Annotated[
        float, typer.Option(help="Accepted chance of a wrong PASS, and of a wrong FAIL.")
    ] = DEFAULT_ALPHA,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="For connecting, and again for each answer.")
    ] = 5.0,
    json: JSONOption = None,
    junit: JUnitOption = None,
    svg: SVGOption = None,
) -> None:
    """Run a weighted route on this machine with a real Envoy, and judge it.

    Exit code: 0 PASS, 1 FAIL, 2 usage, 3 INCONCLUSIVE, 4 could not measure,
    130 interrupted.
    """
    configure = partial(
        ProbeConfig,
        connections=connections,
        concurrency=concurrency,
        margin=margin,
        alpha=alpha,
        timeout=timeout,
    )
    route = built_in(parse_weights(weights))
    expected = parse_expectation("expect", expect or ()) or None
    # Whatever cannot work is refused before anything starts.
    for course in courses(route):
        configure(target="127.0.0.1:1", expect=expected or route.shares(course.chain))
    files = Files(json, junit, svg)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    try:
        code = trio.run(_Performance(route, expected, configure, files).run)
    except RehearsalError as error:
        print(f"trio-echo: {error}", file=sys.stderr)
        code = _UNMEASURED
    raise typer.Exit(code)


def parse_weights(text: str) -> dict[str, int]:
    """Read ``one=80,two=20``.

    Raises:
        ConfigError: it is of another form, or a weight is no whole number.
    """
    weights = parse_expectation("weights", text.split(","))
    if any(not weight.is_integer() or not 0 <= weight < 2**31 for weight in weights.values()):
        raise ConfigError("weights", f"must be whole numbers from 0, got {text!r}")
    if "" in weights or not any(weights.values()):
        raise ConfigError("weights", f"must have names, and one weight above 0, got {text!r}")
    return {name: int(weight) for name, weight in weights.items()}


class _Performance:
    """One run of the command, from the first server to the exit code."""

    def __init__(
        self,
        route: Route,
        expect: Mapping[str, float] | None,
        configure: partial[ProbeConfig],
        files: Files,
    ) -> None:
        self._route = route
        self._expect = expect
        self._configure = configure
        self._files = files
        self._binary = find_envoy()
        self._tally: Tally | None = None
        self._interrupted = False

    async def run(self) -> int:
        """Put the route up, judge it, take it down; return the exit code."""
        code = 0
        signalled = trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM)
        with one_error(), signalled as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_on_signals, signals, nursery.cancel_scope)
                async with open_stage(self._route, self._binary) as stage:
                    self._say_ports(stage)
                    for course in courses(stage.route):
                        code = max(code, await self._judge(stage, course))
                        if self._interrupted:
                            break
                nursery.cancel_scope.cancel()
        return _INTERRUPTED if self._interrupted else code

    async def _judge(self, stage: Stage, course: Course) -> int:
        """Probe one course with a live tally, and print what comes of it."""
        async with trio.open_nursery() as nursery:

            def watch(tally: Tally) -> None:
                self._tally = tally
                nursery.start_soon(follow, tally)

            report, check = await judge(
                stage, course, self._configure, expect=self._expect, watch=watch
            )
            self._tally = None
            nursery.cancel_scope.cancel()
        return self._publish(report, check)

    def _publish(self, report: Report, check: CrossCheck) -> int:
        """Print the report and the cross-check; return the exit code of both."""
        code = publish(report, self._files)
        self._files.words.print(str(check), soft_wrap=True)
        return code if check.agrees else _UNMEASURED

    def _say_ports(self, stage: Stage) -> None:
        """Say where the route can be reached, and why if it is elsewhere."""
        for listener in stage.route.listeners:
            port = stage.ports[listener.name]
            instead = f", as {listener.port} is not free" if port != listener.port else ""
            print(f"{listener.name}: Envoy on 127.0.0.1:{port}{instead}", file=sys.stderr)

    async def _end_on_signals(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Stop the probe at the first signal and print what it has; end all at the next."""
        async for _ in signals:
            if self._interrupted or self._tally is None:
                scope.cancel()
            else:
                self._tally.stop()
            self._interrupted = True
