"""The conductor: puts a plan up, judges it or walks it, and follows its manifests.

It prints nothing and reads no environment. What happens is told to an
`Events`, what came of it is the `Result`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import trio

from trio_echo.errors import NoRouteError, TrioEchoError
from trio_echo.prober.split import Verdict, worst
from trio_echo.rehearsal.judge import judge, targets
from trio_echo.rehearsal.process import find_envoy, how_to_install
from trio_echo.rehearsal.route import Notice, Plan, Route
from trio_echo.rehearsal.shift import walking
from trio_echo.rehearsal.testbed import open_testbed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from trio_echo.prober.schedule import Tally
    from trio_echo.prober.words import Report
    from trio_echo.rehearsal.envoy import Plane
    from trio_echo.rehearsal.judge import Configure, CrossCheck, Target
    from trio_echo.rehearsal.route import Chain, Listener
    from trio_echo.rehearsal.shift import Step, Walk
    from trio_echo.rehearsal.testbed import Testbed
    from trio_echo.rehearsal.workload_documents import ParseServe

__all__ = ["Events", "Result", "read_plan", "run"]

_LOOK = 0.3
"""Seconds between two looks at the files: soon enough for someone who saves and
switches to another window, and cheap."""

_SAY = 0.5
"""Seconds between two looks at the counts of a route that is held."""

_SAY_AGAIN = 10.0
"""Seconds between two lines while connections keep coming: more is no news."""

_Fingerprint: TypeAlias = "dict[Path, tuple[int, int, int] | None]"


class Events:
    """What happens in a run, as it happens. Each method does nothing unless overridden."""

    def noted(self, notice: Notice) -> None:
        """The manifests say something that is not carried out."""

    def warned(self, warning: Notice) -> None:
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

    def settling(self, seconds: float) -> None:
        """All steps are judged; in so many seconds, open connections have been cut or stay."""

    def finished(self, result: Result) -> None:
        """Everything has its verdict; the route is taken down, or held."""

    def holding(self, target: Target, port: int) -> None:
        """The route stays up; this part of it can be reached on this port."""

    def accepted(self, counts: Mapping[str, int]) -> None:
        """The held route's backends took connections; the counts since its last change."""

    def shifted(self, target: Target, shares: Mapping[str, float], cut: int | None) -> None:
        """An edit of the manifests is up; this is what a part of the route does now.

        Connections that were open are cut in `cut` seconds; None where they stay.
        """

    def opened(self, target: Target, shares: Mapping[str, float]) -> None:
        """An edit of the manifests routes what was not routed before."""

    def closed(self, target: Target, cut: int) -> None:
        """An edit of the manifests leaves a part of the route out.

        New connections to it are refused; those that were open are cut in
        `cut` seconds.
        """

    def unchanged(self) -> None:
        """An edit of the manifests changes nothing of what is routed."""

    def refused(self, error: TrioEchoError) -> None:
        """An edit of the manifests cannot be carried out; the last good route stays."""

    def undone(self) -> None:
        """An edit that was refused has been undone: the manifests say what is up."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        reports: the verdicts, in the order of the targets, or of the walk's steps.
        walk: the walk, where there was one.
        warnings: what the data plane does in silence, and nobody means.
        notices: what the manifests say that is not carried out.
    """

    reports: tuple[Report, ...]
    walk: Walk | None = None
    warnings: tuple[Notice, ...] = ()
    notices: tuple[Notice, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The worst of all; FAIL too where a connection was lost on the way."""
        if self.walk is not None and self.walk.lost:
            return Verdict.FAIL
        return worst(report.verdict for report in self.reports)

    def __str__(self) -> str:
        """All reports in words, then what became of open connections."""
        parts = [*map(str, self.reports), *([str(self.walk)] if self.walk else [])]
        return "\n".join([*parts, *(f"warning: {each.placed}" for each in self.warnings)])


def read_plan(
    manifests: Sequence[str],
    parse: ParseServe,
    *,
    standard_input: str = "",
    plane: Plane | None = None,
    again: bool = False,
) -> Plan:
    """Read manifests, and work out what they would do in a cluster.

    Args:
        manifests: paths of files and folders; ``-`` is standard input.
        parse: reads the command line of ``serve`` in a container.
        standard_input: the text for ``-``.
        plane: who runs Gateways of Gateway API; None to go by their class.
        again: whether they were read before, so that what is missing was
            deleted: a file of theirs, or every route.

    Raises:
        ManifestError: one of them is wrong, or no route leads anywhere.
        TrioEchoError: what reads manifests is not installed.
    """
    try:
        from trio_echo.rehearsal.kustomize import read_manifests  # noqa: PLC0415 - an extra
        from trio_echo.rehearsal.plan import make_plan  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise TrioEchoError(
            f"reading manifests needs {error.name}; install it with: {how_to_install()}"
        ) from None
    found = read_manifests(manifests, standard_input, again=again)
    try:
        plan = make_plan(found.documents, parse, plane)
    except NoRouteError as error:
        if not again:
            raise
        plan = Plan(Route(listeners=(), backends=()), (Notice(str(error)),))
    return replace(plan, files=frozenset(found.files))


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
    async with open_testbed(plan.route, find_envoy(), drain=plan.drain) as testbed:
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
        return self._result(reports)

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
            else:
                if (seconds := walk.settled) > 0:
                    self._events.settling(seconds)
                    await trio.sleep(seconds)
        return self._result([step.report for step in walk.steps], walk)

    def _result(self, reports: Sequence[Report], walk: Walk | None = None) -> Result:
        """The result, with what there is to say about the plan."""
        plan = self._plan
        return Result(tuple(reports), walk, warnings=plan.warnings, notices=plan.notices)

    async def hold(self, testbed: Testbed, reload: Callable[[], Plan]) -> None:
        """Keep the route up and follow the manifests, until cancelled."""
        for target in targets(testbed.route):
            self._events.holding(target, testbed.ports[target.listener.name])
        start, ports, held = testbed.accepted(), testbed.ports, _routed(testbed.route)

        def shifted() -> None:
            nonlocal start, ports, held
            start = testbed.accepted()
            before, held = held, _routed(testbed.route)
            for name, (target, shares, _) in held.items():
                cut = testbed.drain if name in testbed.cuts else None
                if name not in before:
                    self._events.opened(target, shares)
                elif held[name][1:] != before[name][1:]:
                    self._events.shifted(target, shares, cut)
            for name in before.keys() - held.keys():
                self._events.closed(before[name][0], testbed.drain)
            if testbed.ports != ports:
                ports = testbed.ports
                self.say_ports(testbed)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._say_accepted, testbed, lambda: start)
            await follow(
                testbed,
                reload,
                self._plan,
                heard=self._say_notices,
                shifted=shifted,
                refused=self._events.refused,
                undone=self._events.undone,
                unchanged=self._events.unchanged,
            )

    def say_ports(self, testbed: Testbed) -> None:
        """Say where the route can be reached."""
        for listener in testbed.route.listeners:
            self._events.up(listener, testbed.ports[listener.name])

    def _say_notices(self, plan: Plan) -> None:
        """Say what is not carried out, and what nobody means, where that was not said before."""
        for notice in plan.notices:
            if notice.text not in self._noted:
                self._events.noted(notice)
        for warning in plan.warnings:
            if warning.text not in self._noted:
                self._events.warned(warning)
        # Without their lines: an edit above moves those.
        self._noted = {each.text for each in (*plan.notices, *plan.warnings)}

    async def _say_accepted(self, testbed: Testbed, since: Callable[[], dict[str, int]]) -> None:
        """Tell who got the connections since the last shift, whenever some came."""
        said: Counter[str] = Counter()
        due = 0.0
        while True:
            counts = Counter(testbed.accepted()) - Counter(since())
            # Another backend, or fewer than before: the route has changed.
            changed = counts.keys() != said.keys() or not said <= counts
            news = changed or trio.current_time() >= due
            if counts and counts != said and news:
                self._events.accepted(counts)
                due = trio.current_time() + _SAY_AGAIN
                said = counts
            await trio.sleep(_SAY)


def _routed(route: Route) -> dict[str, tuple[Target, Mapping[str, float], Chain]]:
    """Every target, with its shares and its chain, by the name of the chain."""
    return {
        each.listener.chain_name(each.chain): (each, route.shares(each.chain), each.chain)
        for each in targets(route)
    }


async def follow(  # noqa: PLR0913 - who is told of what
    testbed: Testbed,
    read: Callable[[], Plan],
    plan: Plan,
    *,
    shifted: Callable[[], object],
    refused: Callable[[TrioEchoError], object],
    heard: Callable[[Plan], object] = lambda _: None,
    undone: Callable[[], object] = lambda: None,
    unchanged: Callable[[], object] = lambda: None,
) -> None:
    """Put every change of the manifests up, until cancelled.

    Where a file is gone, or no route is left, an editor may be at work: that
    is put up when it is still so at the next look.

    Args:
        testbed: what is up.
        read: reads the manifests again.
        plan: what that gave before; the files may have changed since. What is
            up may differ, after a walk through other weights, and stays until
            the manifests say another thing.
        shifted: called when the new route is up.
        refused: called with the reason where the new manifests, or Envoy, do
            not allow it; the last good route stays.
        heard: called with every plan that was read.
        undone: called when the manifests say again what is up, after a refusal.
        unchanged: called when an edit changes nothing of what is routed.
    """
    route = plan.route
    watched = set(plan.files)
    seen: _Fingerprint | None = None
    doubted: _Fingerprint | None = None
    broken = False

    async def take_in(now: _Fingerprint) -> bool:
        nonlocal route, doubted
        # A reader that waits for kubectl, or for a disk, holds up no Ctrl-C.
        found = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
        if (None in now.values() or not found.route.listeners) and now != doubted:
            doubted = now
            return False
        heard(found)
        # Files that are new here are read once more in the next turn: an edit
        # since they were read would be missed otherwise.
        added = found.files - watched
        watched.update(added)
        if found.route != route:
            await testbed.change(found.route)
            route = found.route
            shifted()
        elif broken:
            undone()
        elif seen is not None and not added:
            unchanged()
        return True

    while True:
        now = await trio.to_thread.run_sync(_fingerprint, watched, abandon_on_cancel=True)
        if now != seen:
            try:
                if await take_in(now):
                    broken, seen = False, now
            except TrioEchoError as error:
                broken, seen = True, now
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
