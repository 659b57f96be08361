"""One run of ``trio-echo rehearse``, from the first server to the exit code."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trio_echo.cli.console import Words
from trio_echo.cli.output import exit_code, publish
from trio_echo.cli.tally import follow
from trio_echo.errors import ConfigError
from trio_echo.rehearsal import courses, find_envoy, judge, open_stage
from trio_echo.rehearsal.errors import one_error
from trio_echo.rehearsal.hold import follow_manifests
from trio_echo.rehearsal.picture import walk_to_svg
from trio_echo.rehearsal.shift import walking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from trio_echo.cli.output import Files
    from trio_echo.errors import TrioEchoError
    from trio_echo.prober import Report, Tally
    from trio_echo.rehearsal import Course, CrossCheck, Route, Stage
    from trio_echo.rehearsal.judge import Configure

__all__ = ["Loaded", "Performance", "Script"]

_INTERRUPTED = 130
_LOST = 1
_SAY = 0.5
"""Seconds between two looks at the tally of a route that is held."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the manifests, or the built-in route, say now.

    Attributes:
        route: what to rehearse.
        notices: what is not carried out.
        files: what it was read from.
    """

    route: Route
    notices: tuple[str, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """What the user asked for.

    Attributes:
        load: reads the manifests again.
        configure: makes a probe's configuration.
        sets: weights to walk through; none for the route's own.
        hold: keep the route up afterwards.
        files: where reports go.
    """

    load: Callable[[], Loaded]
    configure: Configure
    sets: Sequence[Sequence[int]]
    hold: bool
    files: Files


class Performance:
    """One run of the command.

    Args:
        script: what the user asked for.
        loaded: what to begin with.

    Raises:
        RehearsalError: there is no Envoy.
    """

    def __init__(self, script: Script, loaded: Loaded) -> None:
        self._script = script
        self._loaded = loaded
        self._binary = find_envoy()
        self._tally: Tally | None = None
        self._interrupted = False
        self._holding = False
        self._noted: Sequence[str] = ()
        self._aside = Words(stderr=True)

    async def run(self) -> int:
        """Put the route up, judge it, take it down; return the exit code."""
        code = 0
        signalled = trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with one_error(), signalled as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_on_signals, signals, nursery.cancel_scope)
                self._say_notices(self._loaded)
                async with open_stage(self._loaded.route, self._binary) as stage:
                    self._say_ports(stage)
                    if self._script.sets:
                        code = await self._walk(stage)
                    else:
                        code = await self._judge_all(stage)
                    if self._script.hold and not self._interrupted:
                        await self._hold(stage)
                nursery.cancel_scope.cancel()
        return _INTERRUPTED if self._interrupted else code

    async def _judge_all(self, stage: Stage) -> int:
        """Judge every part of the route; return the worst exit code."""
        code = 0
        for course in courses(stage.route):
            async with trio.open_nursery() as nursery:
                watch = self._watcher(nursery)
                report, check = await judge(stage, course, self._script.configure, watch=watch)
                nursery.cancel_scope.cancel()
            self._tally = None
            self._say_course(course)
            code = max(code, self._publish(report, check))
            if self._interrupted:
                break
        return code

    async def _walk(self, stage: Stage) -> int:
        """Walk the route through the sets of weights; return the worst exit code."""
        code = 0
        (course,) = courses(stage.route)
        async with walking(stage, course, self._script.configure) as walk:
            for weights in self._script.sets:
                shares = stage.route.shares(course.chain.weighted(weights))
                self._print(f"shift to {_in_words(shares)}")
                async with trio.open_nursery() as nursery:
                    step = await walk.step(weights, self._watcher(nursery))
                    nursery.cancel_scope.cancel()
                self._tally = None
                headline = str(step.report).partition("\n")[0]
                self._print(f"{headline}\n{step.check}")
                code = max(code, exit_code(step.report))
                if self._interrupted:
                    break
        self._print(str(walk))
        if self._script.files.svg is not None:
            try:
                self._script.files.svg.write_text(walk_to_svg(walk), encoding="utf-8")
            except OSError as error:
                raise ConfigError("svg", f"cannot write: {error.strerror}") from None
        return max(code, _LOST if walk.lost else 0)

    async def _hold(self, stage: Stage) -> None:
        """Keep the route up until a signal, and follow the manifests."""
        self._holding = True
        for course in courses(stage.route):
            port = stage.ports[course.listener.name]
            if course.server_name is None:
                self._print(f"holding; try: echo world | nc -N 127.0.0.1 {port}")
            else:
                ask = f"openssl s_client -quiet -connect 127.0.0.1:{port}"
                self._print(f"holding; try: {ask} -servername {course.server_name}")
        start, ports = stage.accepted(), stage.ports

        def read() -> tuple[Route, Sequence[Path]]:
            loaded = self._script.load()
            self._say_notices(loaded)
            return loaded.route, loaded.files

        def shifted() -> None:
            nonlocal start, ports
            start = stage.accepted()
            for course in courses(stage.route):
                shares = stage.route.shares(course.chain)
                self._print(f"shifted {course.listener.name}: {_in_words(shares)}")
            if stage.ports != ports:
                ports = stage.ports
                self._say_ports(stage)

        def refused(error: TrioEchoError) -> None:
            self._say(f"not taken, the last good route stays: {error}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_accepted, stage, lambda: start)
            said = self._loaded.route, self._loaded.files
            await follow_manifests(stage, read, said, shifted=shifted, refused=refused)

    async def _say_accepted(self, stage: Stage, since: Callable[[], dict[str, int]]) -> None:
        """Show who got the connections since the last shift, whenever some came."""
        said: Counter[str] = Counter()
        while True:
            counts = Counter(stage.accepted()) - Counter(since())
            if counts and counts != said:
                self._say(f"since the last shift: {_in_words(counts)}")
            said = counts
            await trio.sleep(_SAY)

    def _watcher(self, nursery: trio.Nursery) -> Callable[[Tally], None]:
        """What shows a probe's tally while it runs."""

        def watch(tally: Tally) -> None:
            self._tally = tally
            nursery.start_soon(follow, tally)

        return watch

    def _publish(self, report: Report, check: CrossCheck) -> int:
        """Print the report and the cross-check; return the exit code."""
        code = publish(report, self._script.files)
        self._print(str(check))
        return code

    def _say_course(self, course: Course) -> None:
        """Say which of several is judged."""
        if len(courses(self._loaded.route)) > 1:
            name = f", server name {', '.join(course.chain.sni)}" if course.chain.sni else ""
            self._print(f"\n{course.listener.name}{name}")

    def _say_notices(self, loaded: Loaded) -> None:
        """Say what is not carried out, where that was not said before."""
        for notice in loaded.notices:
            if notice not in self._noted:
                self._say(f"note: {notice}")
        self._noted = loaded.notices

    def _say_ports(self, stage: Stage) -> None:
        """Say where the route can be reached, and why if it is elsewhere."""
        for listener in stage.route.listeners:
            port = stage.ports[listener.name]
            instead = f", as {listener.port} is not free" if port != listener.port else ""
            self._say(f"{listener.name}: Envoy on 127.0.0.1:{port}{instead}")

    def _print(self, text: str) -> None:
        """Print what is a result, at once also where it goes into a pipe."""
        self._script.files.words.print(text, soft_wrap=True)
        self._script.files.words.file.flush()

    def _say(self, text: str) -> None:
        """Print what happens, beside the results."""
        self._aside.print(text, soft_wrap=True)

    async def _end_on_signals(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """Stop the probe at the first signal and print what it has; end all at the next.

        A route that is held has its verdict: there a signal is the end that
        the user meant.
        """
        async for _ in signals:
            if self._tally is None or self._interrupted:
                scope.cancel()
            else:
                self._tally.stop()
            self._interrupted = not self._holding


def _in_words(numbers: Mapping[str, float]) -> str:
    """Names with their numbers, in a row."""
    return ", ".join(f"{name} {number:g}" for name, number in numbers.items())
