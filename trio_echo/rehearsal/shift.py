"""A walk of a route through several weights, with clients that never stop."""

from __future__ import annotations

import textwrap
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import trio

from trio_echo.prober.picture import COLOURS, Canvas, steps
from trio_echo.prober.remarks import duration, percent
from trio_echo.rehearsal.judge import judge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report
    from trio_echo.rehearsal.judge import Configure, CrossCheck, Target
    from trio_echo.rehearsal.route import Route
    from trio_echo.rehearsal.testbed import Testbed

__all__ = ["Cut", "Sample", "Step", "Walk", "walk_to_json", "walk_to_svg", "walking"]

_SAMPLE = 0.05
"""Seconds between two looks at the counts, for the picture."""

_KEPT = 5
"""Connections opened at each step and kept."""

_TALK = 0.5
"""Seconds between two lines on a kept connection."""

_AFTER = 2.0
"""Seconds after the drain time of the last change in which connections are cut."""

_EARLY = 0.5
"""Seconds by which a cut may seem to come before the drain time is over."""

_PAUSE = 0.01
"""Seconds between two connections of the client that never stops."""

_TOGETHER = 0.2
"""Seconds in which cuts are drawn as one."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The end of an open connection that its client did not want.

    Attributes:
        time: when, in seconds since the walk began.
        age: how long it had been open, in seconds.
        name: the prefix that it was answered with.
        unanswered: whether a line was on its way, which is never answered.
        drained: whether the drain time of a change that it lived through was
            over: that is what the data plane does, and no loss.
        again: seconds until another connection was answered; None if none was.
    """

    time: float
    age: float
    name: str
    unanswered: bool
    drained: bool
    again: float | None


class Change(NamedTuple):
    """A change of the route after which open connections are cut.

    Attributes:
        began: the moment before it, in seconds since the walk began.
        taken: the moment after Envoy had said that it took it. What was opened between
            the two may have met the old route or the new one.
    """

    began: float
    taken: float


class Walk:
    """A walk that is under way, or done.

    Attributes:
        steps: what was judged so far, in the order of the walk.
        samples: the counts over time.
        between: connections of the client that never stops.
        kept: connections that clients open at each step, and want to keep.
        cuts: the ends of those that the data plane cut, in their order.
        changes: when the route changed so that open connections are cut.
        lost: connections that failed, of the probe or of these clients, and
            those that were cut for no change.
        drain: seconds from a change to the end of older connections.
    """

    def __init__(self, testbed: Testbed, target: Target, configure: Configure) -> None:
        """Prepare a walk; see `walking`."""
        self.steps: list[Step] = []
        self.samples: list[Sample] = []
        self._testbed = testbed
        self._target = target
        self._configure = configure
        self.drain = testbed.drain
        self._clients = _Clients(testbed.ports[target.listener.name], testbed.drain)
        self._tallies: list[Tally] = []
        self._nursery: trio.Nursery | None = None

    @property
    def between(self) -> int:  # noqa: D102 - an attribute of the class
        return self._clients.between

    @property
    def kept(self) -> int:  # noqa: D102 - the same
        return self._clients.kept

    @property
    def cuts(self) -> Sequence[Cut]:  # noqa: D102 - the same
        return self._clients.cuts

    @property
    def changes(self) -> Sequence[float]:  # noqa: D102 - the same
        return [each.began for each in self._clients.changes]

    @property
    def lost(self) -> int:  # noqa: D102 - the same
        return self._clients.lost + sum(step.report.errors for step in self.steps)

    def __str__(self) -> str:
        """What was lost on the way, and what became of open connections, a line each."""
        probed = sum(step.report.connections for step in self.steps)
        lost = "none was lost" if not self.lost else f"{self.lost} WERE LOST"
        return (
            f"on the way: {probed} connections of the probe, {self.between} of a client that"
            f" never stopped: {lost}\nopen connections: {self._fates()}"
        )

    def _fates(self) -> str:
        """What became of the connections that clients wanted to keep."""
        cuts = [each for each in self.cuts if each.drained]
        if not cuts:
            return f"{self.kept} kept to the end, none was cut by a change"
        unanswered = sum(each.unanswered for each in cuts)
        waits = [each.again for each in cuts if each.again is not None]
        again = f"answered again within {duration(max(waits))}" if waits else "NEVER answered again"
        # One that was opened anew may meet the next change.
        count, each = f"{len(cuts)} of {self.kept} were CUT", ""
        if len(cuts) > self.kept:
            count, each = f"{self.kept} clients were CUT {len(cuts)} times in all,", " each"
        lost = f"{unanswered} lost the answer to a line on its way"
        return (
            f"{count}{each} {self.drain} s after a change of weights, the drain time;"
            f" {lost if unanswered else 'none lost an answer'};"
            f" their clients connected anew and were {again}"
        )

    async def step(self, weights: Sequence[int], watch: Callable[[Tally], object]) -> Step:
        """Put weights up and judge them.

        Args:
            weights: in the order of the target's destinations.
            watch: as for `trio_echo.probe`.
        """

        def seen(tally: Tally) -> None:
            self._tallies.append(tally)
            watch(tally)

        testbed = self._testbed
        # The moment before: a short drain time is over when Envoy has answered.
        changes = self._clients.changes
        changes.append(Change(self._now(), inf))
        await testbed.change(_with_weights(testbed.route, self._target, weights))
        began = self._now()
        change = changes.pop()
        if testbed.cuts:
            changes.append(Change(change.began, began))
        assert self._nursery is not None  # noqa: S101 - `run` has set it
        await self._clients.keep(_KEPT, self._nursery)
        target = replace(self._target, chain=self._target.chain.weighted(weights))
        report, check = await judge(
            testbed, target, self._configure, watch=seen, beside=self._clients
        )
        step = Step(
            weights=report.expectation.weights,
            began=began,
            ended=self._now(),
            report=report,
            check=check,
        )
        self.steps.append(step)
        return step

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let the clients come and the samples be taken, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._clients.never_stop)
            task_status.started()
            while True:
                self._take_sample()
                await trio.sleep(_SAMPLE)

    @property
    def settled(self) -> float:
        """Seconds from now to the end of the last change's drain time; 0 if it is over."""
        if not self.changes:
            return 0.0
        return max(0.0, self.changes[-1] + self.drain + _AFTER - self._now())

    def _take_sample(self) -> None:
        """Keep the counts of this moment."""
        counts = Counter(self._clients.answered)
        for tally in self._tallies:
            counts.update(tally.counts.answers)
        self.samples.append(Sample(self._now(), counts))

    def _now(self) -> float:
        """Seconds since the walk began."""
        return self._clients.now()


@asynccontextmanager
async def walking(testbed: Testbed, target: Target, configure: Configure) -> AsyncIterator[Walk]:
    """Walk a route through several weights: each `Walk.step` in the block is one.

    Meanwhile one client opens a connection after the other without a pause at
    the changes, and a few connections are opened at each step and kept, with a
    line now and then: what becomes of them is told. Clients whose connection
    is cut connect anew.

    Args:
        testbed: what is up.
        target: the part of its route to walk; it must be without TLS.
        configure: makes a probe's configuration.
    """
    walk = Walk(testbed, target, configure)
    async with trio.open_nursery() as nursery:
        await nursery.start(walk.run)
        yield walk
        nursery.cancel_scope.cancel()


def _with_weights(route: Route, target: Target, weights: Sequence[int]) -> Route:
    """The route with other weights in one target, in the order of its destinations."""
    listeners = tuple(
        replace(
            each,
            chains=tuple(
                chain.weighted(weights) if chain.sni == target.chain.sni else chain
                for chain in each.chains
            ),
        )
        if each.name == target.listener.name
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
        lost: connections that failed at any time, or were cut for no change.
        kept: how many clients want to keep their connection.
        cuts: what became of those.
        changes: when the route changed so that open connections will be cut.
        quiet: whoever holds it sees no connection on its way.
    """

    def __init__(self, port: int, drain: float = 0.0) -> None:
        """Prepare clients of a loopback port."""
        self.answered: Counter[str] = Counter()
        self.launched = 0
        self.between = 0
        self.lost = 0
        self.kept = 0
        self.cuts: list[Cut] = []
        self.changes: list[Change] = []
        self.quiet = trio.Lock()
        self._port = port
        self._drain = drain
        self._began = trio.current_time()

    def now(self) -> float:
        """Seconds since these clients were made."""
        return trio.current_time() - self._began

    async def never_stop(self) -> None:
        """Open one connection after the other, one line on each."""
        while True:
            async with self.quiet:
                self.between += 1
                stream = await self._open()
                if stream is not None:
                    await trio.aclose_forcefully(stream[0])
            await trio.sleep(_PAUSE)

    async def keep(self, number: int, nursery: trio.Nursery) -> None:
        """Open connections that clients in the nursery want to keep."""
        for _ in range(number):
            found = await self._open()
            if found is not None:
                self.kept += 1
                nursery.start_soon(self._keep, *found)

    async def _keep(self, stream: trio.SocketStream, name: str) -> None:
        """Keep a connection, and connect anew where it is cut. Nothing is open in the end."""
        while True:
            opened = self.now()
            try:
                unanswered = await _talk(stream, name)
            finally:
                stream.socket.close()
            ended = self.now()
            drained = any(
                opened < each.taken and ended >= each.began + self._drain - _EARLY
                for each in self.changes
            )
            self.lost += not drained
            async with self.quiet:
                asked = self.now()
                found = await self._open()
                again = None if found is None else self.now() - asked
            self.cuts.append(
                Cut(
                    time=ended,
                    age=ended - opened,
                    name=name,
                    unanswered=unanswered,
                    drained=drained,
                    again=again,
                )
            )
            if found is None:
                return
            stream, name = found

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


async def _talk(stream: trio.SocketStream, name: str) -> bool:
    """Send a line now and then, until the connection ends; whether one was on its way then."""
    while True:
        with trio.move_on_after(_TALK) as pause:
            with suppress(OSError, trio.BrokenResourceError):
                await stream.receive_some()
            return False  # nothing is due: it is the end
        assert pause.cancelled_caught  # noqa: S101 - else it has returned
        try:
            if await _exchange(stream) != name:
                return True
        except (OSError, trio.TooSlowError, trio.BrokenResourceError):
            return True


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


def walk_to_json(walk: Walk) -> dict[str, object]:
    """What a walk found beside its steps, for JSON; times in seconds."""
    return {
        "drain": walk.drain,
        "changes": [round(each, 3) for each in walk.changes],
        "between": walk.between,
        "kept": walk.kept,
        "lost": walk.lost,
        "cuts": [
            {
                "time": round(cut.time, 3),
                "age": round(cut.age, 3),
                "backend": cut.name,
                "unanswered": cut.unanswered,
                "drained": cut.drained,
                "again": None if cut.again is None else round(cut.again, 4),
            }
            for cut in walk.cuts
        ],
    }


_WIDTH = 860.0
_LEFT, _RIGHT = 70.0, 830.0
_HEIGHT = 260.0
_WINDOW = 40
"""Connections behind each point of a line: fewer would be noise, more would hide
how fast the traffic moves."""

_COLUMNS = 6
"""Steps side by side in the table."""

_ROWS = 6
"""Backends in the table; the report in words has them all."""

_STYLES = {"PASS": "pass", "FAIL": "fail"}


def walk_to_svg(walk: Walk) -> str:
    """Draw the walk. Text in it is escaped, and it loads nothing from anywhere."""
    verdicts = [str(step.report.verdict or "no verdict") for step in walk.steps]
    title = f"Traffic shifted in {len(walk.steps)} steps: {', '.join(verdicts)}"
    canvas = Canvas(_WIDTH, title, str(walk))
    first, second = str(walk).split("\n")
    style = "pass" if set(verdicts) == {"PASS"} and not walk.lost else "fail"
    canvas.text(30, 38, title, f"head {style}")
    y = 60
    for line in (*textwrap.wrap(first, 116), *textwrap.wrap(second, 116)):
        canvas.text(30, y, line, "muted")
        y += 18
    names = list(dict.fromkeys(name for step in walk.steps for name in step.weights))
    end = _Plot(canvas, walk, names, y + 20).draw()
    return canvas.finish(end + 22)


class _Plot:
    """The shares over time."""

    def __init__(self, canvas: Canvas, walk: Walk, names: list[str], top: float) -> None:
        self._canvas = canvas
        self._top = top
        self._walk = walk
        self._names = names
        moments = [step.ended for step in walk.steps] + [cut.time for cut in walk.cuts]
        self._last = max(moments)

    def draw(self) -> float:
        """Draw scales, steps, lines, table and legend. Returns where that ends."""
        canvas = self._canvas
        for tick in steps(0, 1, 6):
            y = self._y(tick)
            canvas.line(_LEFT, y, _RIGHT, y, "hair s-grid")
            canvas.text(_LEFT - 8, y + 4, f"{100 * tick:.0f} %", "small muted", "end")
        bottom = self._top + _HEIGHT
        for tick in steps(0, self._last, 10):
            canvas.text(self._x(tick), bottom + 16, f"{tick:g} s", "small muted", "middle")
        for number, step in enumerate(self._walk.steps, start=1):
            self._draw_step(number, step)
        for number, name in enumerate(self._names):
            points = [(self._x(time), self._y(share)) for time, share in self._shares(name)]
            if points:
                canvas.path(points, f"line s-{_colour(number)}")
        for time, number in self._cuts().items():
            x = self._x(time)
            canvas.line(x, bottom - 26, x, bottom, "line s-fail")
            canvas.text(x - 4, bottom - 14, f"{number} cut", "small fail", "end")
        end = self._draw_table(bottom + 44)
        self._draw_legend(end + 12)
        return end + 12

    def _cuts(self) -> dict[float, int]:
        """How many connections were cut at one time, by when the first of them was."""
        found: dict[float, int] = {}
        first = -inf
        for cut in self._walk.cuts:
            if cut.time > first + _TOGETHER:
                first = cut.time
            found[first] = found.get(first, 0) + 1
        return found

    def _draw_step(self, number: int, step: Step) -> None:
        """What was expected while a step lasted."""
        canvas = self._canvas
        left, right = self._x(step.began), self._x(step.ended)
        canvas.line(left, self._top - 8, left, self._top + _HEIGHT, "hair dash s-muted")
        canvas.text(left + 4, self._top - 4, str(number), "small muted")
        for place, name in enumerate(self._names):
            low, high = step.report.expectation.band(name)
            colour = _colour(place)
            height = self._y(low) - self._y(high)
            canvas.rect(left, self._y(high), right - left, height, f"{colour} faint")
            expected = self._y(step.report.expectation.shares[name])
            canvas.line(left, expected, right, expected, f"hair dash s-{colour}")

    def _draw_table(self, y: float) -> float:
        """Each step's verdict and shares, in columns. Returns where that ends."""
        canvas = self._canvas
        width = (_RIGHT - _LEFT) / min(len(self._walk.steps), _COLUMNS)
        height = 24 + 15 * min(len(self._names), _ROWS)
        for number, step in enumerate(self._walk.steps):
            row, column = divmod(number, _COLUMNS)
            x, top = _LEFT + column * width, y + row * height
            verdict = str(step.report.verdict or "no verdict")
            words = f"{number + 1}: {verdict} after {step.report.connections}"
            canvas.text(x, top, words, f"small {_STYLES.get(verdict, 'open')}")
            for line, backend in enumerate(step.report.backends[:_ROWS]):
                colour = (
                    _colour(self._names.index(backend.name))
                    if backend.name in self._names
                    else "muted"
                )
                words = f"{backend.name[:12]} {percent(backend.share)}"
                canvas.text(x, top + 15 * (line + 1), words, f"small {colour}")
        rows = -(-len(self._walk.steps) // _COLUMNS)
        return y + rows * height

    def _draw_legend(self, y: float) -> None:
        """Which line is whose."""
        x = _LEFT
        for number, name in enumerate(self._names[:COLOURS]):
            self._canvas.line(x, y - 4, x + 18, y - 4, f"line s-{_colour(number)}")
            self._canvas.text(x + 24, y, name[:16])
            x += 24 + 8 * len(name[:16]) + 28
        note = f"line: share of {_WINDOW} connections at a time · band: margin"
        if self._walk.cuts:
            note += " · upright: open connections cut"
        self._canvas.text(_RIGHT, y, note, "small muted", "end")

    def _shares(self, name: str) -> Iterator[tuple[float, float]]:
        """The share of a backend at moments, each over a window of connections."""
        samples = self._walk.samples
        first = 0
        for sample in samples:
            while first + 1 < len(samples) and _answered(samples[first + 1], sample) >= _WINDOW:
                first += 1
            answered = _answered(samples[first], sample)
            if answered >= _WINDOW:
                earlier = samples[first].counts.get(name, 0)
                yield sample.time, (sample.counts.get(name, 0) - earlier) / answered

    def _x(self, time: float) -> float:
        """Where a moment is."""
        return _LEFT + min(time, self._last) / self._last * (_RIGHT - _LEFT)

    def _y(self, share: float) -> float:
        """Where a share is."""
        return self._top + (1 - share) * _HEIGHT


def _answered(earlier: Sample, later: Sample) -> int:
    """Connections that were answered between two moments."""
    return sum(later.counts.values()) - sum(earlier.counts.values())


def _colour(number: int) -> str:
    """The colour of a backend."""
    return f"c{min(number, COLOURS)}"
