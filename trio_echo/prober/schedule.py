"""When connections are launched, and when that ends: the probe itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_echo.prober.contact import find_address
from trio_echo.prober.exchange import Exchanger
from trio_echo.prober.outcome import Outcome
from trio_echo.prober.ports import PortWatch
from trio_echo.prober.report import Report
from trio_echo.prober.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.wire import Address

__all__ = ["probe"]

_WINDOW = 16_384
"""Connections that may be launched ahead of the oldest one still in flight. They
wait to be counted in launch order, so this bounds the memory; a connection that
hangs until its timeout holds up nobody before 16 000 others have passed it."""

_GRACE = 1.0
"""Seconds for the connections in flight to end by themselves after the verdict,
so that the other side's counters agree with ours and it logs no cut."""


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
        ConfigError: a TLS file cannot be used.
    """
    exchanger = Exchanger(config)
    tally = Tally(config, exchanger.run)
    if watch is not None:
        watch(tally)
    with tally.cancel_scope:
        address = await find_address(tally, exchanger)
        if address is not None:
            await _Schedule(tally, exchanger, address).run()
    tally.finish()
    return Report.of(tally)


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
        self._started = trio.current_time()

    async def run(self) -> None:
        """Probe until there is a verdict or nothing left to spend."""
        tally = self._tally
        tally.phase = "probing"
        tally.started = self._started
        async with trio.open_nursery() as outer:
            outer.start_soon(self._cut_late, outer.cancel_scope)
            async with trio.open_nursery() as workers:
                for _ in range(min(self._config.in_flight, self._config.budget or _WINDOW)):
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
        while not tally.over() and self._next != self._config.budget:
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
