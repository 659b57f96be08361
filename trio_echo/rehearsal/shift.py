"""A walk of a route through several weights, with clients that never stop."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import trio

from trio_echo.rehearsal.judge import judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from trio_echo.prober import Report, Tally
    from trio_echo.rehearsal.judge import Configure, Course, CrossCheck
    from trio_echo.rehearsal.route import Route
    from trio_echo.rehearsal.stage import Stage

__all__ = ["Sample", "Step", "Walk", "walking"]

_SAMPLE = 0.05
"""Seconds between two looks at the counts, for the picture."""

_KEPT = 5
"""Connections opened at each step and kept to the end."""

_PAUSE = 0.01
"""Seconds between two connections of the client that never stops."""

_PATIENCE = 5.0
"""Seconds for one line of these clients before it counts as lost."""


class Sample(NamedTuple):
    """Counts at one moment of the walk.

    Attributes:
        time: seconds since its beginning.
        counts: connections answered so far, by prefix.
    """

    time: float
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One set of weights on the walk.

    Attributes:
        weights: expected of each prefix.
        began: when these weights were up, in seconds since the beginning.
        ended: when they were judged.
        report: the judgement.
        check: whether all counted the same.
    """

    weights: Mapping[str, float]
    began: float
    ended: float
    report: Report
    check: CrossCheck


class Walk:
    """A walk that is under way, or done.

    Attributes:
        steps: what was judged so far, in the order of the walk.
        samples: the counts over time.
        between: connections of the client that never stops.
        kept: connections that stay open from their step to the end.
        lost: connections that failed, of the probe or of these clients.
    """

    def __init__(self, stage: Stage, course: Course, configure: Configure) -> None:
        """Prepare a walk; see `walking`."""
        self.steps: list[Step] = []
        self.samples: list[Sample] = []
        self._stage = stage
        self._course = course
        self._configure = configure
        self._clients = _Clients(stage.ports[course.listener.name])
        self._tallies: list[Tally] = []
        self._began = trio.current_time()

    @property
    def between(self) -> int:  # noqa: D102 - an attribute of the class
        return self._clients.between

    @property
    def kept(self) -> int:  # noqa: D102 - the same
        return len(self._clients.kept)

    @property
    def lost(self) -> int:  # noqa: D102 - the same
        return self._clients.lost + sum(step.report.errors for step in self.steps)

    def __str__(self) -> str:
        """One line: what was lost on the way."""
        probed = sum(step.report.connections for step in self.steps)
        lost = "none was lost" if not self.lost else f"{self.lost} WERE LOST"
        return (
            f"on the way: {probed} connections of the probe, {self.between} of a client that"
            f" never stopped, {self.kept} kept open to the end: {lost}"
        )

    async def step(self, weights: Sequence[int], watch: Callable[[Tally], object]) -> Step:
        """Put weights on stage and judge them.

        Args:
            weights: in the order of the course's destinations.
            watch: as for `trio_echo.probe`.
        """

        def seen(tally: Tally) -> None:
            self._tallies.append(tally)
            watch(tally)

        stage = self._stage
        await stage.change(_with_weights(stage.route, self._course, weights))
        began = self._now()
        await self._clients.keep(_KEPT)
        course = replace(self._course, chain=self._course.chain.weighted(weights))
        report, check = await judge(
            stage, course, self._configure, watch=seen, beside=self._clients
        )
        step = Step(
            weights=report.expect, began=began, ended=self._now(), report=report, check=check
        )
        self.steps.append(step)
        return step

    async def run(self) -> None:
        """Let the clients come and the samples be taken, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._clients.never_stop)
            while True:
                self._take_sample()
                await trio.sleep(_SAMPLE)

    async def finish(self) -> None:
        """Look at the counts once more, and ask the connections that were kept."""
        self._take_sample()
        await self._clients.ask_kept()

    def close(self) -> None:
        """Close the connections that were kept."""
        self._clients.close()

    def _take_sample(self) -> None:
        """Keep the counts of this moment."""
        counts = Counter(self._clients.answered)
        for tally in self._tallies:
            counts.update(tally.split.counts)
        self.samples.append(Sample(self._now(), counts))

    def _now(self) -> float:
        """Seconds since the walk began."""
        return trio.current_time() - self._began


@asynccontextmanager
async def walking(stage: Stage, course: Course, configure: Configure) -> AsyncIterator[Walk]:
    """Walk a route through several weights: each `Walk.step` in the block is one.

    Meanwhile one client opens a connection after the other without a pause at
    the changes, and a few connections are opened at each step and kept: they
    must be with their backend still when the block ends.

    Args:
        stage: what is up.
        course: the part of its route to walk; it must be without TLS.
        configure: makes a probe's configuration.
    """
    walk = Walk(stage, course, configure)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(walk.run)
            yield walk
            nursery.cancel_scope.cancel()
        await walk.finish()
    finally:
        walk.close()


def _with_weights(route: Route, course: Course, weights: Sequence[int]) -> Route:
    """The route with other weights in one course, in the order of its destinations."""
    listeners = tuple(
        replace(
            each,
            chains=tuple(
                chain.weighted(weights) if chain.sni == course.chain.sni else chain
                for chain in each.chains
            ),
        )
        if each.name == course.listener.name
        else each
        for each in route.listeners
    )
    return replace(route, listeners=listeners)


class _Clients:
    """Clients beside the probe. They count what they do, for the cross-check.

    Attributes:
        answered: connections that got their first answer, by prefix.
        launched: connections that were begun.
        between: those of the client that never stops.
        lost: connections that failed at any time.
        kept: open connections and the prefix that each began with.
        quiet: whoever holds it sees no connection of the client that never
            stops on its way.
    """

    def __init__(self, port: int) -> None:
        """Prepare clients of a loopback port."""
        self.answered: Counter[str] = Counter()
        self.launched = 0
        self.between = 0
        self.lost = 0
        self.kept: list[tuple[trio.SocketStream, str]] = []
        self.quiet = trio.Lock()
        self._port = port

    async def never_stop(self) -> None:
        """Open one connection after the other, one line on each."""
        while True:
            async with self.quiet:
                self.between += 1
                stream = await self._open()
                if stream is not None:
                    await trio.aclose_forcefully(stream[0])
            await trio.sleep(_PAUSE)

    async def keep(self, number: int) -> None:
        """Open connections that stay."""
        for _ in range(number):
            stream = await self._open()
            if stream is not None:
                self.kept.append(stream)

    async def ask_kept(self) -> None:
        """Ask once more on every kept connection: it must be with its backend still."""
        for stream, name in self.kept:
            try:
                still = await _exchange(stream)
            except (OSError, trio.TooSlowError, trio.BrokenResourceError):
                still = None
            self.lost += still != name

    def close(self) -> None:
        """Close what was kept."""
        for stream, _ in self.kept:
            stream.socket.close()

    async def _open(self) -> tuple[trio.SocketStream, str] | None:
        """Open a connection and ask on it; None where that fails, which is counted.

        When cancelled, nothing is left open.
        """
        self.launched += 1
        stream: trio.SocketStream | None = None
        name: str | None = None
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            name = await _exchange(stream)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError):
            pass  # counted below, as an end of file is
        finally:
            if name is None and stream is not None:
                stream.socket.close()
        if name is None or stream is None:
            self.lost += 1
            return None
        self.answered[name] += 1
        return stream, name


async def _exchange(stream: trio.SocketStream) -> str | None:
    """Send a line; the prefix of the answer, or None at end of file."""
    answer = b""
    with trio.fail_after(_PATIENCE):
        await stream.send_all(b"?\n")
        while not answer.endswith(b" ?\n"):
            more = await stream.receive_some()
            if not more:
                return None
            answer += more
    return answer.removesuffix(b" ?\n").decode(errors="replace")
