"""Probes one target slowly and for ever, and holds connections open beside it.

Connections start at a steady rate, whether earlier ones have ended or not. Each
is counted when it ends. The held ones talk once a second and are replaced when
they are lost; where a dialogue cannot be repeated, only their end is waited for.
Nothing waits for anybody: a target that hangs costs the time-out of each
connection and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import ceil, isfinite
from typing import TYPE_CHECKING

import trio

from trio_echo.errors import ConfigError
from trio_echo.monitor.record import Loss, Record
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.dialogue import FailureError
from trio_echo.prober.exchange import Exchanger, classify
from trio_echo.prober.schedule import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_echo.monitor.record import Event
    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.exchange import Address, Wire

__all__ = ["DEFAULT_RATE", "Watch", "WatchConfig", "watch"]

DEFAULT_RATE = 5.0
"""Connections a second: some 430,000 a day, which burdens nobody."""

_TALK = 1.0
"""Seconds between two lines on a held connection, and at least between the openings of
two that replace each other: some servers end each connection behind their answer."""

_SAMPLE = 1.0

_RESOLVE_AGAIN = 30.0
"""Seconds after which a name is looked up anew: a Service may have moved."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
"""Seconds between two tries to open a held connection."""

_BEHIND = 1.0
"""Seconds by which the schedule may fall behind, such as when a laptop slept, before
what was missed is left out instead of made up for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """Everything a watch is told.

    Attributes:
        probe: the target, what is expected of it, and how to speak with it; its
            numbers of connections, concurrency, rate and duration are not used.
        rate: connections to start per second.
        duration: seconds after which the watch ends; None for never.
        hold: how many connections to hold open and talk over.
        until_change: end at the first change of the split, or once a part of the
            connections has failed for long.

    Raises:
        ConfigError: a value cannot work.
    """

    probe: ProbeConfig
    rate: float = DEFAULT_RATE
    duration: float | None = None
    hold: int = 0
    until_change: bool = False

    def __post_init__(self) -> None:
        for name in ("rate", "duration"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ConfigError(name, f"must be more than 0, got {value:g}")
        if self.hold < 0:
            raise ConfigError("hold", f"must not be negative, got {self.hold}")


class Watch:
    """A running watch.

    Attributes:
        config: what it was told.
        record: what it has seen; read it at any time between checkpoints.
        cancel_scope: around everything that it does.
    """

    def __init__(self, config: WatchConfig, tell: Callable[[Event], object]) -> None:
        self.config = config
        self.record = Record(config.probe.expectation, config.probe.target, tell)
        self.cancel_scope = trio.CancelScope()
        self._exchanger = Exchanger(config.probe)
        self._target = _Target(config.probe)
        self._numbers = count()
        self._started = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return trio.current_time() - self._started

    def stop(self) -> None:
        """End the watch now."""
        self.cancel_scope.cancel()

    async def run(self) -> None:
        """Watch until stopped, until the duration is over, or, if told so, until a change.

        Every connection is closed then, also when cancelled from outside.
        """
        self._started = trio.current_time()
        with self.cancel_scope:
            if self.config.duration is not None:
                self.cancel_scope.deadline = self._started + self.config.duration
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sample)
                for _ in range(self.config.hold):
                    nursery.start_soon(self._hold)
                await self._launch(nursery)
        self.record.sample(self.elapsed)

    async def _launch(self, nursery: trio.Nursery) -> None:
        """Start connections at the rate, as many at once as may be waiting for a time-out."""
        rate = self.config.rate
        room = trio.Semaphore(max(16, ceil(2 * rate * self.config.probe.timeout)))
        due = self._started
        while True:
            await trio.sleep_until(due)
            await room.acquire()
            nursery.start_soon(self._exchange, room, due)
            due += 1 / rate
            if due < trio.current_time() - _BEHIND:
                due = trio.current_time()

    async def _exchange(self, room: trio.Semaphore, intended: float) -> None:
        """Make one connection and count it."""
        try:
            address = await self._target.address()
        except FailureError as failure:
            result = Result(failure.outcome, detail=failure.detail)
        else:
            result = await self._exchanger.exchange(address, next(self._numbers), intended)
            self._target.told(result.outcome)
        room.release()
        change = self.record.take(result, self.elapsed)
        if change is not None and self.config.until_change:
            self.stop()

    async def _sample(self) -> None:
        """Note where things stand, once a second."""
        while True:
            self.record.sample(self.elapsed)
            if self.record.outages and self.config.until_change:
                self.stop()
            await trio.sleep(_SAMPLE - self.elapsed % _SAMPLE)

    async def _hold(self) -> None:
        """Hold one connection, and replace it whenever it is lost."""
        timeout = self.config.probe.timeout
        lost: Loss | None = None
        while True:
            if lost is not None:
                await trio.sleep(max(0.0, _TALK - lost.age))
            lost_at = trio.current_time()
            held: tuple[Wire, int, str] | None = None
            with trio.move_on_after(timeout if lost else float("inf")):
                held = await self._open()
            told = held is not None
            if lost is not None:
                took = trio.current_time() - lost_at
                self.record.lose(lost, self.elapsed, (held[2], took) if held else None)
            if held is None:
                held = await self._open()
            wire, number, name = held
            if not told:
                self.record.replace(name, trio.current_time() - lost_at, self.elapsed)
            self.record.held += 1
            try:
                lost = await self._talk(wire, number, name)
            finally:
                self.record.held -= 1
                wire.close()

    async def _open(self) -> tuple[Wire, int, str]:
        """Open a connection and have its first line answered, however often that takes.

        Returns:
            The connection, its number, and who answered.
        """
        pause = _FIRST_PAUSE
        while True:
            number = next(self._numbers)
            wire: Wire | None = None
            try:
                wire = await self._exchanger.open(await self._target.address(), number)
                name = await self._exchanger.speak(wire, number, 0)
            except (FailureError, OSError, trio.BrokenResourceError):
                pass  # the connections at the rate count and tell it
            else:
                held, wire = wire, None
                return held, number, name
            finally:
                if wire is not None:
                    wire.close()
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _talk(self, wire: Wire, number: int, name: str) -> Loss:
        """Say a line now and then, and notice the end at once.

        Returns:
            How the connection was lost.
        """
        began = trio.current_time()
        failure = await self._end_of(wire, number, name)
        return Loss(name, failure.outcome, failure.detail, trio.current_time() - began)

    async def _end_of(self, wire: Wire, number: int, name: str) -> FailureError:
        """Talk until the connection is lost. Returns how it was."""
        line = 0
        try:
            while True:
                line += 1
                await self._say(wire, number, line, name)
        except FailureError as failure:
            return failure
        except (OSError, trio.BrokenResourceError) as error:
            return classify(error, connected=True)

    async def _say(self, wire: Wire, number: int, line: int, name: str) -> None:
        """Wait a while, ask once more, and have the same backend answer.

        Where asking again makes no sense, it waits for the end of the connection.

        Raises:
            FailureError: the connection ended, or the answer did not come or was another.
            OSError, trio.BrokenResourceError: the connection broke.
        """
        dialogue = self._exchanger.dialogue
        with trio.move_on_after(_TALK if dialogue.repeats else float("inf")):
            while await wire.receive():
                if dialogue.strict:
                    raise FailureError(Outcome.WRONG_ECHO, "bytes that nobody asked for")
            raise FailureError(Outcome.EOF_BEFORE_ANSWER, "")
        if await self._exchanger.speak(wire, number, line) != name:
            raise FailureError(Outcome.WRONG_ECHO, "from another backend")


class _Target:
    """The address behind the target, looked up anew now and then and after failures."""

    def __init__(self, config: ProbeConfig) -> None:
        self._config = config
        self._found: Address | None = None
        self._failure: FailureError | None = None
        self._again_at = float("-inf")
        self._lock = trio.Lock()

    async def address(self) -> Address:
        """The address to connect to.

        An address that was good stays in use while its name does not resolve.

        Raises:
            FailureError: there was never one.
        """
        async with self._lock:
            await self._look()
        if self._found is None:
            assert self._failure is not None  # noqa: S101 - one of them there is, after a look
            raise FailureError(self._failure.outcome, self._failure.detail)
        return self._found

    async def _look(self) -> None:
        """Look the name up, if it is time to."""
        if trio.current_time() < self._again_at:
            return
        try:
            self._found, _ = await resolve(self._config)
        except FailureError as failure:
            self._failure = failure
        after = _LONGEST_PAUSE if self._found is None else _RESOLVE_AGAIN
        self._again_at = trio.current_time() + after

    def told(self, outcome: Outcome) -> None:
        """Take note of how a connection to it ended; after a failed connect, look again soon."""
        if outcome in {Outcome.REFUSED, Outcome.UNREACHABLE, Outcome.CONNECT_TIMEOUT}:
            self._again_at = min(self._again_at, trio.current_time() + _LONGEST_PAUSE)


async def watch(
    config: WatchConfig,
    *,
    tell: Callable[[Event], object] = lambda _: None,
    follow: Callable[[Watch], object] = lambda _: None,
) -> Record:
    """Watch a target.

    Args:
        config: what to watch, and how.
        tell: called with each event as it happens.
        follow: called once, before anything else happens, with the running
            `Watch`: read its record at any time, or stop it.

    Returns:
        What was seen. When cancelled from outside, nothing is returned and
        every connection is closed.

    Raises:
        ConfigError: a TLS file or a server name cannot be used.
    """
    watching = Watch(config, tell)
    follow(watching)
    await watching.run()
    return watching.record
