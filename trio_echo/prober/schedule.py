"""The probe: finds the address, launches connections, counts them in launch order."""

from __future__ import annotations

import socket
from collections import Counter, deque
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from trio_echo.prober.config import split_target
from trio_echo.prober.counts import Counts, Outcome, Result
from trio_echo.prober.dialogue import FailureError
from trio_echo.prober.exchange import Exchanger, classify
from trio_echo.prober.latency import Histogram
from trio_echo.prober.look import SecondLook, is_puzzling
from trio_echo.prober.order import Order, Point
from trio_echo.prober.split import Verdict
from trio_echo.prober.words import Report, Run, decide
from trio_echo.text import format_address, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.exchange import Address

__all__ = ["PortWatch", "Tally", "probe", "resolve"]

_WINDOW = 16_384
"""Connections that may be launched ahead of the oldest one still in flight. They
wait to be counted in launch order, so this bounds the memory; a connection that
hangs until its timeout holds up nobody before 16 000 others have passed it."""

_GRACE = 1.0
"""Seconds for the connections in flight to end by themselves after the verdict,
so that the other side's counters agree with ours and it logs no cut."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
"""Seconds between two tries while waiting: the first quickly, for a route that
is nearly there; then once a second, which burdens nobody."""

_FAMILIES = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}

_SYSCTL = Path("/proc/sys/net/ipv4")

_HELD = 60.0
"""Seconds that Linux holds the port of a connection it closed first (TIME_WAIT)."""

_HELD_SHORT = 1.0
"""Seconds after which it reuses such a port all the same, where it may."""

_FULL = 0.8
"""The part of the ports in use at which to warn: there is still time to act."""

_MARK = 64
"""Launches between two marks of the time; what is in use is known to that."""


async def probe(config: ProbeConfig, *, watch: Callable[[Tally], object] | None = None) -> Report:
    """Measure how a route splits connections, and judge it.

    Args:
        config: what to measure and what to expect.
        watch: called once, before anything else happens, with the live
            `Tally`: read it at any time, or `Tally.stop` the probe with it.

    Returns:
        What was found, also where nothing could be measured. When cancelled
        from outside, nothing is returned and every connection is closed.

    Raises:
        ConfigError: a TLS file or a server name cannot be used.
    """
    exchanger = Exchanger(config)
    tally = Tally(config, exchanger.run)
    if watch is not None:
        watch(tally)
    address = None
    with tally.cancel_scope:
        address = await _find_address(tally, exchanger)
        if address is not None and not tally.over():
            await _Schedule(tally, exchanger, address).run()
    tally.finish(0.0 if tally.started is None else trio.current_time() - tally.started)
    if address is not None and tally.is_puzzling:
        tally.phase = "looking"
        tally.cancel_scope = trio.CancelScope(deadline=tally.cancel_scope.deadline)
        look = SecondLook(config, address)
        with tally.cancel_scope:
            await look.run(tally.counts)
        tally.counts += look.found  # what it made before a cancel, too
    return tally.report()


class Tally:
    """The live count of a probe; read it at any time between checkpoints.

    With several connections in flight, the first to end are those of the
    fastest backend. So results wait here until all that were launched before
    them are in, and only then are counted and judged.

    Attributes:
        config: what the probe was told.
        run: the tag of this run.
        budget: connections to spend at most; None for as many as the duration holds.
        phase: what it does now: ``resolving``, ``waiting``, ``probing``, ``done``, or
            ``looking``, which is for the cause of a failure.
        address: the numeric address it connects to, once known.
        counts: what was counted so far; it grows.
        examples: for each way to fail, what the first such connection met.
        order: what the order of the answers says.
        launched: connections launched, counted yet or not.
        ended: connections that came to an end by themselves, counted or not.
        contacts: connections made before the first that counts.
        verdict: None until it is known.
        stopped: whether somebody stopped the probe before its end.
        notices: what else the user should know.
        began: the time of day, for people to find a run again.
        started: when the first connection started, in trio's time.
        elapsed: seconds from then on until the end.
        cancel_scope: around what the probe does, and again around the second look.
    """

    def __init__(self, config: ProbeConfig, run: str) -> None:
        self.config = config
        self.run = run
        self.budget = config.budget
        self.phase = "resolving"
        self.address: str | None = None
        self.counts = Counts()
        self.examples: dict[Outcome, str] = {}
        self.order = Order()
        self.launched = 0
        self.ended = 0
        self.contacts = 0
        self.verdict: Verdict | None = None
        self.stopped = False
        self.notices: list[str] = []
        self.began = datetime.now(UTC)
        self.started: float | None = None
        self.elapsed = 0.0
        self.cancel_scope = trio.CancelScope()
        self._early: dict[int, Result] = {}
        self._due = 0
        self._sources = config.source_addresses if len(config.source_addresses) > 1 else ()

    @property
    def connections(self) -> int:
        """How many connections were counted."""
        return self._due

    @property
    def is_puzzling(self) -> bool:
        """Whether a second look might tell why it is no PASS."""
        if self.stopped or self.verdict is Verdict.PASS or not self.config.second_look:
            return False
        wrong = self.verdict is Verdict.FAIL or self.counts.errors
        return bool(wrong) and is_puzzling(self.counts)

    def over(self) -> bool:
        """Whether no further connection is needed."""
        return self.verdict is not None or self.stopped

    def stop(self) -> None:
        """End the probe now; it is marked as interrupted unless its verdict was there."""
        self.stopped = self.verdict is None and self.phase != "looking"
        self.cancel_scope.cancel()

    def take(self, index: int, result: Result) -> bool:
        """Take the result of connection `index`, and count all that are due.

        Returns:
            Whether the verdict was reached with it.
        """
        if self.over():
            self._late(result)
            return False
        self._early[index] = result
        while not self.over() and self._due in self._early:
            self._count(self._early.pop(self._due))
        if self.over():
            for early in self._early.values():
                self._late(early)
            self._early.clear()
        return self.over()

    def fail(self, result: Result) -> None:
        """Count a failure that ends the probe before its first connection."""
        self._fail(result)
        self._due += 1
        self.verdict = Verdict.UNMEASURED

    def finish(self, elapsed: float = 0.0) -> None:
        """Take note that no more connections will come, `elapsed` seconds after the first."""
        self.phase = "done"
        self.elapsed = elapsed
        self._early.clear()
        self.counts = replace(
            self.counts,
            launched=self.launched,
            unfinished=self.launched - self.ended,
            contacts=self.contacts,
        )
        if not self.over():
            self._decide(ended=True)

    def _count(self, result: Result) -> None:
        """Count the next connection in launch order, and look whether that decides."""
        counts, name = self.counts, result.name
        if name is None:
            self._fail(result)
        else:
            counts.outcomes[Outcome.OK] += 1
            counts.answers[name] += 1
            if name not in counts.answer:
                counts.connect[name], counts.answer[name] = Histogram(), Histogram()
            counts.connect[name].add(result.connect)
            counts.answer[name].add(result.answer)
            if self._sources:
                source = self._sources[self._due % len(self._sources)]
                counts.sources.setdefault(source, Counter())[name] += 1
            if result.mixed:
                self.counts = replace(counts, mixed=counts.mixed + 1)
            self.order.add(name)
        if self.config.rate is not None:
            counts.lag.add(result.lag)
        self._due += 1
        self.order.mark(self._due, counts.errors, counts.answers)
        self._decide(ended=False)

    def _fail(self, result: Result) -> None:
        """Count a failed connection and keep the first of its kind as an example."""
        self.counts.outcomes[result.outcome] += 1
        self.counts.failed.setdefault(result.outcome, Histogram()).add(result.took)
        self.examples.setdefault(result.outcome, result.detail)

    def _late(self, result: Result) -> None:
        """Count an answer that came after the verdict."""
        if result.name is not None:
            self.counts.late[result.name] += 1

    def _decide(self, *, ended: bool) -> None:
        """Set the verdict if the counts have reached one."""
        config = self.config
        self.verdict = decide(config.expectation, self.counts, config.error_limit, ended=ended)

    def report(self) -> Report:
        """What was found, once the tally has finished."""
        points = self.order.points
        if not points or points[-1].total != self._due:
            points = [*points, Point(self._due, self.counts.errors, dict(self.counts.answers))]
        run = Run(
            tag=self.run,
            target=self.config.target,
            address=self.address,
            began=self.began.isoformat(timespec="milliseconds"),
            elapsed=self.elapsed,
            error_limit=self.config.error_limit,
            interrupted=self.stopped,
            counts=self.counts,
            examples=dict(self.examples),
            points=points,
            changes=self.order.runs(),
            notices=tuple(self.notices),
            asked=self.config.asked,
        )
        return Report(self.config.expectation, (run,))


class _Schedule:
    """Launches connections: one when another ends, or at a rate.

    As many workers as may be in flight each take the next connection and wait
    for its time. In a closed loop that time is now. In an open loop it is
    fixed by the rate: a worker that is late for it, because all were busy,
    starts at once, and the delay is the connection's lag.
    """

    def __init__(self, tally: Tally, exchanger: Exchanger, address: Address) -> None:
        self._tally = tally
        self._config = tally.config
        self._exchanger = exchanger
        self._address = address
        self._ports = PortWatch(address, max(1, len(self._config.source_addresses)))
        self._over = trio.Event()
        self._behind = trio.lowlevel.ParkingLot()
        self._next = 0
        self._budget = tally.budget
        self._started = trio.current_time()

    async def run(self) -> None:
        """Probe until there is a verdict or nothing left to spend."""
        tally = self._tally
        tally.phase = "probing"
        tally.started = self._started
        async with trio.open_nursery() as outer:
            outer.start_soon(self._cut_late, outer.cancel_scope)
            async with trio.open_nursery() as workers:
                for _ in range(min(self._config.in_flight, self._budget or _WINDOW)):
                    workers.start_soon(self._work)
            outer.cancel_scope.cancel()

    async def _cut_late(self, scope: trio.CancelScope) -> None:
        """Once the verdict is there, give what is in flight a moment to end."""
        await self._over.wait()
        await trio.sleep(_GRACE)
        scope.cancel()

    async def _work(self) -> None:
        """Make one connection after another, as long as they are wanted."""
        tally = self._tally
        while not tally.over() and self._next != self._budget:
            index = self._next
            self._next += 1
            intended = self._intended(index)
            # What a rate fell behind with is not made up for after the end.
            if self._config.duration is not None and (
                max(intended, trio.current_time()) >= self._started + self._config.duration
            ):
                return
            if intended > trio.current_time():
                with trio.move_on_at(intended):
                    await self._over.wait()
            while index - tally.connections >= _WINDOW and not tally.over():
                await self._behind.park()
                intended = self._intended(index)  # in a closed loop only now
            if tally.over():
                return
            tally.launched += 1
            tally.notices += self._ports.launched(trio.current_time())
            result = await self._exchanger.exchange(self._address, index, intended)
            tally.ended += 1
            if tally.take(index, result):
                self._over.set()
            self._behind.unpark_all()
            if result.outcome is not Outcome.OK:
                # A refused connection has not waited for anything, and others
                # must run between thousands of them.
                await trio.lowlevel.checkpoint()

    def _intended(self, index: int) -> float:
        """When a connection should start, in trio's time."""
        if self._config.rate is None:
            return trio.current_time()
        return self._started + index / self._config.rate


async def _find_address(tally: Tally, exchanger: Exchanger) -> Address | None:
    """Find the one address that the whole probe connects to, and wait for the route.

    A name may stand for several addresses. One of them is measured, and said,
    rather than a mixture that changes with the resolver's mood.

    Returns:
        The address, or None where there is none. Where there is nothing to probe,
        `tally` knows why and is over.
    """
    address = None
    wait = tally.config.wait
    deadline = trio.current_time() + wait
    pause = _FIRST_PAUSE
    if wait:
        tally.phase = "waiting"
    while True:
        try:
            address, contacts = await resolve(tally.config)
            tally.contacts += contacts
        except FailureError as error:
            failure = Result(error.outcome, detail=error.detail)
        else:
            tally.address = format_address(str(address[1][0]), int(address[1][1]))
            if not wait:
                return address
            tally.contacts += 1
            failure = await exchanger.exchange(address, -tally.contacts, trio.current_time())
            if failure.outcome is Outcome.OK:
                return address
        if trio.current_time() + pause > deadline or failure.outcome is Outcome.LOCAL:
            if wait:
                waited = f"no answer within {wait:g} s; the last try"
                detail = f"{waited}: {failure.detail or failure.outcome}"
                failure = failure._replace(detail=detail)
            tally.fail(failure)
            return address
        await trio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def resolve(config: ProbeConfig) -> tuple[Address, int]:
    """Resolve the target, and of several addresses take the one that connects first.

    Returns:
        The address, and how many connections were made to find it.

    Raises:
        FailureError: the name does not resolve, or no address can be connected to.
    """
    host, port = split_target(config.target)
    source = next(iter(config.source_addresses), None)
    family = _FAMILIES[config.ip_version]
    shown = printable(host)
    try:
        found = await trio.socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        # UnicodeError: a label of the name is empty or too long for IDNA.
        detail = getattr(error, "strerror", None) or f"'{shown}' is no valid host name"
        where_from = "" if source is None else f", from {source}"
        raise FailureError(Outcome.RESOLVE, f"{shown}{where_from}: {detail}") from error
    addresses = {where: family for family, _, _, _, where in found}
    if len(addresses) == 1:
        [(where, family)] = addresses.items()
        return (family, where), 0
    with trio.move_on_after(config.timeout):
        try:
            stream = await trio.open_tcp_stream(host, port, local_address=source)
        except OSError as error:
            raise classify(error, connected=False) from error
        async with stream:
            return (stream.socket.family, stream.socket.getpeername()), 1
    raise FailureError(Outcome.CONNECT_TIMEOUT, f"no address of {shown} replied")


class PortWatch:
    """Counts how many local ports recent connections hold.

    A port is free again for the same destination a minute after its connection
    was closed; faster than range / 60 s, and connecting fails.

    Args:
        address: the destination.
        sources: how many local addresses there are to connect from.
        sysctl: where Linux shows its settings.
    """

    def __init__(self, address: Address, sources: int, sysctl: Path = _SYSCTL) -> None:
        ports = _numbers(sysctl / "ip_local_port_range")
        # Where there is no such file there is nothing to warn about in time.
        self._ports = (ports[1] - ports[0] + 1) * sources if len(ports) == 2 else None  # noqa: PLR2004 - first and last
        reuse = _numbers(sysctl / "tcp_tw_reuse")
        loopback = ip_address(str(address[1][0]).partition("%")[0]).is_loopback
        quick = reuse == [1] or (reuse == [2] and loopback)
        self._held = _HELD_SHORT if quick else _HELD
        self._count = 0
        self._marks: deque[float] = deque()

    def launched(self, now: float) -> list[str]:
        """Count one connection.

        Returns:
            A warning where ports are about to run out, once; otherwise nothing.
        """
        self._count += 1
        if self._ports is None or self._count % _MARK:
            return []
        self._marks.append(now)
        while self._marks[0] < now - self._held:
            self._marks.popleft()
        used = len(self._marks) * _MARK
        if used < self._ports * _FULL:
            return []
        total, self._ports = self._ports, None
        warning = (
            f"{used} of {total} local ports were used within {self._held:g} s: connections will "
            "soon fail; lower the --rate, or add a --source-address"
        )
        return [warning]


def _numbers(path: Path) -> list[int]:
    """The numbers in a file of /proc/sys; none where it is not there."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []
