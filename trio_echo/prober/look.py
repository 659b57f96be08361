"""A second look at a route that a probe did not pass: some connections more, not judged.

They keep to the rate and to the connections at a time that the probe was told, and are as
many as it allows at most. They tell causes apart that look alike in one sample:

* Where some connections were answered: 60 more by default, one at a time. A limit of
  connections at a time lets them all through, a used-up rate none, and a balancer that
  goes by open connections shares them out in another way.
* Where none was: one without TLS, or with it; one behind a PROXY header, or without;
  and one on which nothing is sent, which a proxy without backends ends at once.
"""

from __future__ import annotations

import ssl
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_echo.prober.counts import Clue, Counts, Outcome
from trio_echo.prober.dialogue import FailureError
from trio_echo.prober.exchange import Exchanger, open_plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.exchange import Address, PlainWire

__all__ = ["SecondLook", "is_puzzling"]

_MOST = 2.0
"""Seconds for all of it."""

_APART = 0.005
"""Seconds between two connections: a proxy takes a moment to see the end of one."""

_QUIET = 0.3
"""Seconds without a word after which a connection counts as one that waits. What ends
it by itself does so at once."""

_RECORDS = (b"\x15\x03", b"\x16\x03")
"""How TLS begins to speak: with an alert, or with a handshake."""

_TELLING = {
    Outcome.OK,
    Outcome.RESET,
    Outcome.EOF_BEFORE_ANSWER,
    Outcome.EOF_MID_LINE,
    Outcome.READ_TIMEOUT,
    Outcome.WRONG_ECHO,
    Outcome.NO_MATCH,
    Outcome.TLS,
}
"""Ways to end for which a connection stood."""


def is_puzzling(counts: Counts) -> bool:
    """Whether more connections might tell why these counts are no PASS."""
    return any(counts.outcomes[outcome] for outcome in _TELLING)


class SecondLook:
    """The connections of one second look.

    Args:
        config: of the probe.
        address: what it probed.

    """

    def __init__(self, config: ProbeConfig, address: Address) -> None:
        self._alone = Counter[str]()
        self._clues = Counter[Clue]()
        self._contacts = 0
        self._config = config
        self._address = address
        self._pause = 0.0 if config.rate is None else 1 / config.rate
        self._turns = trio.CapacityLimiter(config.in_flight)

    @property
    def found(self) -> Counts:
        """What to add to the probe's counts, also after `run` was cancelled."""
        return Counts(alone=self._alone, clues=self._clues, contacts=self._contacts)

    async def run(self, counts: Counts) -> None:
        """Look, for two seconds at most. When cancelled, every connection is closed.

        Args:
            counts: what the probe found.
        """
        with trio.move_on_after(_MOST):
            await (self._one_at_a_time() if counts.outcomes[Outcome.OK] else self._in_other_ways())

    async def _one_at_a_time(self) -> None:
        """Make connections as the probe does, one after another."""
        exchanger = Exchanger(self._config)
        last = None
        for index in range(self._config.second_look):
            await trio.sleep(max(_APART, self._pause))
            self._contacts += 1
            result = await exchanger.exchange(self._address, index, trio.current_time())
            if result.name is None:
                self._clues[Clue.FAILED_ALONE] += 1
                continue
            self._clues[Clue.CHANGED_ALONE] += last not in (None, result.name)
            self._alone[result.name] += 1
            last = result.name

    async def _in_other_ways(self) -> None:
        """Find what gets an answer, or another end, at the same time."""
        config = self._config
        ways = [partial(self._try, self._in_silence)]
        if config.tls is None:
            ways.append(partial(self._try, self._in_tls))
        elif config.identify_cert is None:
            ways.append(partial(self._ask, replace(config, tls=None), Clue.SPEAKS_NO_TLS))
        if config.proxy_protocol is None:
            other = replace(config, proxy_protocol="v1")
            ways.append(partial(self._ask, other, Clue.WANTS_PROXY))
        else:
            other = replace(config, proxy_protocol=None)
            ways.append(partial(self._ask, other, Clue.WANTS_NO_PROXY))
        async with trio.open_nursery() as nursery:
            for way in ways[: config.second_look]:
                await trio.sleep(self._pause)
                nursery.start_soon(self._in_turn, way)

    async def _in_turn(self, way: Callable[[], Awaitable[None]]) -> None:
        """Make a connection once not too many others are open."""
        async with self._turns:
            self._contacts += 1
            await way()

    async def _ask(self, other: ProbeConfig, clue: Clue) -> None:
        """Ask for an answer in another way."""
        result = await Exchanger(other).exchange(self._address, 0, trio.current_time())
        if result.name is not None:
            self._clues[clue] += 1

    async def _try(self, way: Callable[[PlainWire], Awaitable[Clue | None]]) -> None:
        """See what becomes of a connection."""
        source = next(iter(self._config.source_addresses), None)
        with suppress(FailureError, OSError, ValueError):  # a host may be no name for TLS
            with closing(await open_plain(self._address, source)) as wire:
                clue = await way(wire)
            if clue is not None:
                self._clues[clue] += 1

    async def _in_silence(self, wire: PlainWire) -> Clue | None:
        """Send nothing."""
        with trio.move_on_after(_QUIET):
            try:
                return None if await wire.receive() else Clue.ENDS_UNASKED
            except OSError:
                return Clue.ENDS_UNASKED
        return Clue.WAITS

    async def _in_tls(self, wire: PlainWire) -> Clue | None:
        """Begin a handshake."""
        hello = ssl.MemoryBIO()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        handshake = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=self._config.host)
        with suppress(ssl.SSLWantReadError):
            handshake.do_handshake()
        answer = b""
        with trio.move_on_after(self._config.timeout):
            await wire.send(hello.read())
            answer = await wire.receive()
        return Clue.SPEAKS_TLS if answer[:2] in _RECORDS else None
