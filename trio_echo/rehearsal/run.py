"""The conductor: puts a plan up, judges it or walks it, and follows its manifests.

It prints nothing and reads no environment. What happens is told to an
`Events`, what came of it is the `Result`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import trio

from trio_echo.errors import TrioEchoError
from trio_echo.rehearsal.judge import judge, targets
from trio_echo.rehearsal.process import find_envoy
from trio_echo.rehearsal.shift import walking
from trio_echo.rehearsal.testbed import open_testbed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report
    from trio_echo.rehearsal.judge import Configure, CrossCheck, Target
    from trio_echo.rehearsal.route import Listener, Plan
    from trio_echo.rehearsal.shift import Step, Walk
    from trio_echo.rehearsal.testbed import Testbed

__all__ = ["Events", "Result", "run"]

_LOOK = 0.3
"""Seconds between two looks at the files: soon enough for someone who saves and
switches to another window, and cheap."""

_SAY = 0.5
"""Seconds between two looks at the counts of a route that is held."""

_Fingerprint: TypeAlias = "dict[Path, tuple[int, int, int] | None]"


class Events:
    """What happens in a run, as it happens. Each method does nothing unless overridden."""

    def noted(self, notice: str) -> None:
        """The manifests say something that is not carried out."""

    def warned(self, warning: str) -> None:
        """The data plane does in silence what nobody means."""

    def up(self, listener: Listener, port: int) -> None:
        """A listener can be reached on this port of loopback."""

    def probing(self, tally: Tally) -> None:
        """A probe begins; its tally grows, and can stop it."""

    def judged(self, target: Target, report: Report, check: CrossCheck) -> None:
        """A target has its verdict."""

    def shifting(self, shares: Mapping[str, float]) -> None:
        """The next step of the walk is put up."""

    def stepped(self, step: Step) -> None:
        """A step of the walk has its verdict."""

    def finished(self, result: Result) -> None:
        """Everything has its verdict; the route is taken down, or held."""

    def holding(self, target: Target, port: int) -> None:
        """The route stays up; this part of it can be reached on this port."""

    def accepted(self, counts: Mapping[str, int]) -> None:
        """The held route's backends took connections; the counts since its last change."""

    def shifted(self, target: Target, shares: Mapping[str, float]) -> None:
        """An edit of the manifests is up; this is what a part of the route does now."""

    def refused(self, error: TrioEchoError) -> None:
        """An edit of the manifests cannot be carried out; the last good route stays."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        reports: the verdicts, in the order of the targets, or of the walk's steps.
        walk: the walk, where there was one.
    """

    reports: tuple[Report, ...]
    walk: Walk | None = None


async def run(
    plan: Plan,
    configure: Configure,
    *,
    sets: Sequence[Sequence[int]] = (),
    reload: Callable[[], Plan] | None = None,
    events: Events | None = None,
) -> Result:
    """Put a plan up, judge every target of it, and take it down.

    Whatever ends this, a cancellation too, nothing of it is left running.

    Args:
        plan: what to put up.
        configure: makes the configuration of each probe.
        sets: walk the only target through these weights instead.
        reload: reads the plan again. If given, the route stays up after the
            verdict and follows what this returns, until cancelled.
        events: is told what happens.

    Raises:
        RehearsalError: there is no Envoy, or something ended by itself.
    """
    events = events or Events()
    conductor = _Conductor(plan, configure, events)
    async with open_testbed(plan.route, find_envoy()) as testbed:
        conductor.say_ports(testbed)
        result = await (conductor.walk(testbed, sets) if sets else conductor.judge_all(testbed))
        events.finished(result)
        if reload is not None and not any(each.interrupted for each in result.reports):
            await conductor.hold(testbed, reload)
    return result


class _Conductor:
    """Does the parts of a run."""

    def __init__(self, plan: Plan, configure: Configure, events: Events) -> None:
        self._plan = plan
        self._configure = configure
        self._events = events
        self._noted: set[str] = set()
        self._say_notices(plan)

    async def judge_all(self, testbed: Testbed) -> Result:
        """Judge every part of the route, up to an interruption."""
        reports: list[Report] = []
        for target in targets(testbed.route):
            report, check = await judge(
                testbed, target, self._configure, watch=self._events.probing
            )
            reports.append(report)
            self._events.judged(target, report, check)
            if report.interrupted:
                break
        return Result(tuple(reports))

    async def walk(self, testbed: Testbed, sets: Sequence[Sequence[int]]) -> Result:
        """Walk the route through sets of weights, up to an interruption."""
        (target,) = targets(testbed.route)
        async with walking(testbed, target, self._configure) as walk:
            for weights in sets:
                self._events.shifting(testbed.route.shares(target.chain.weighted(weights)))
                step = await walk.step(weights, self._events.probing)
                self._events.stepped(step)
                if step.report.interrupted:
                    break
        return Result(tuple(step.report for step in walk.steps), walk)

    async def hold(self, testbed: Testbed, reload: Callable[[], Plan]) -> None:
        """Keep the route up and follow the manifests, until cancelled."""
        for target in targets(testbed.route):
            self._events.holding(target, testbed.ports[target.listener.name])
        start, ports = testbed.accepted(), testbed.ports

        def read() -> Plan:
            plan = reload()
            trio.from_thread.run_sync(self._say_notices, plan)
            return plan

        def shifted() -> None:
            nonlocal start, ports
            start = testbed.accepted()
            for target in targets(testbed.route):
                self._events.shifted(target, testbed.route.shares(target.chain))
            if testbed.ports != ports:
                ports = testbed.ports
                self.say_ports(testbed)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_accepted, testbed, lambda: start)
            await follow(testbed, read, self._plan, shifted=shifted, refused=self._events.refused)

    def say_ports(self, testbed: Testbed) -> None:
        """Say where the route can be reached."""
        for listener in testbed.route.listeners:
            self._events.up(listener, testbed.ports[listener.name])

    def _say_notices(self, plan: Plan) -> None:
        """Say what is not carried out, and what nobody means, where that was not said before."""
        for notice in plan.notices:
            if notice not in self._noted:
                self._events.noted(notice)
        for warning in plan.warnings:
            if warning not in self._noted:
                self._events.warned(warning)
        self._noted = {*plan.notices, *plan.warnings}

    async def _say_accepted(self, testbed: Testbed, since: Callable[[], dict[str, int]]) -> None:
        """Tell who got the connections since the last shift, whenever some came."""
        said: Counter[str] = Counter()
        while True:
            counts = Counter(testbed.accepted()) - Counter(since())
            if counts and counts != said:
                self._events.accepted(counts)
            said = counts
            await trio.sleep(_SAY)


async def follow(
    testbed: Testbed,
    read: Callable[[], Plan],
    plan: Plan,
    *,
    shifted: Callable[[], object],
    refused: Callable[[TrioEchoError], object],
) -> None:
    """Put every change of the manifests up, until cancelled.

    Args:
        testbed: what is up.
        read: reads the manifests again.
        plan: what that gave before; the files may have changed since. What is
            up may differ, after a walk through other weights, and stays until
            the manifests say another thing.
        shifted: called when the new route is up.
        refused: called with the reason where the new manifests, or Envoy, do
            not allow it; the last good route stays.
    """
    route = plan.route
    watched = set(plan.files)
    seen: _Fingerprint | None = None

    async def take_in() -> None:
        nonlocal route
        found = await trio.to_thread.run_sync(read)
        # Files that are new here are read once more in the next turn: an edit
        # since they were read would be missed otherwise.
        watched.update(found.files)
        if found.route != route:
            await testbed.change(found.route)
            route = found.route
            shifted()

    while True:
        now = await trio.to_thread.run_sync(_fingerprint, watched)
        if now != seen:
            seen = now
            try:
                await take_in()
            except TrioEchoError as error:
                refused(error)
        await trio.sleep(_LOOK)


def _fingerprint(files: set[Path]) -> _Fingerprint:
    """What tells whether a file or folder has changed; None for one that is gone."""
    found: _Fingerprint = {}
    for path in files:
        try:
            status = path.stat()
        except OSError:
            found[path] = None
        else:
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found
