"""A second look at a route that a probe did not pass: some connections more, not judged.

They tell causes apart that look alike in one sample:

* Where some connections were answered: up to 60 connections, one at a time. A limit of
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
from typing import TYPE_CHECKING

import trio

from trio_echo.prober.counts import Clue, Counts, Outcome
from trio_echo.prober.dialogue import FailureError
from trio_echo.prober.exchange import Exchanger, open_plain

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.exchange import Address, PlainWire

__all__ = ["is_puzzling", "second_look"]

_ALONE = 60
"""Connections one at a time: all miss a backend of 20 % once in 600 000 times."""

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


async def second_look(config: ProbeConfig, address: Address, counts: Counts) -> Counts:
    """Look again, for two seconds at most.

    Args:
        config: of the probe.
        address: what it probed.
        counts: what it found.

    Returns:
        What to add to `counts`. When cancelled, every connection is closed.
    """
    look = _Look(config, address)
    with trio.move_on_after(_MOST):
        await (look.one_at_a_time() if counts.outcomes[Outcome.OK] else look.in_other_ways())
    return Counts(alone=look.alone, clues=look.clues, contacts=look.contacts)


class _Look:
    """The connections of one second look, and what they found."""

    def __init__(self, config: ProbeConfig, address: Address) -> None:
        self.alone = Counter[str]()
        self.clues = Counter[Clue]()
        self.contacts = 0
        self._config = config
        self._address = address
        self._exchanger = Exchanger(config)

    async def one_at_a_time(self) -> None:
        """Make connections as the probe does, one after another."""
        last = None
        for index in range(_ALONE):
            await trio.sleep(_APART)
            self.contacts += 1
            result = await self._exchanger.exchange(self._address, index, trio.current_time())
            if result.name is None:
                self.clues[Clue.FAILED_ALONE] += 1
                continue
            self.clues[Clue.CHANGED_ALONE] += last not in (None, result.name)
            self.alone[result.name] += 1
            last = result.name

    async def in_other_ways(self) -> None:
        """Find what gets an answer, or another end, all at the same time."""
        config = self._config
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._try, self._in_silence)
            if config.tls is None:
                nursery.start_soon(self._try, self._in_tls)
            elif config.identify_cert is None:
                nursery.start_soon(self._ask, replace(config, tls=None), Clue.SPEAKS_NO_TLS)
            if config.proxy_protocol is None:
                other = replace(config, proxy_protocol="v1")
                nursery.start_soon(self._ask, other, Clue.WANTS_PROXY)
            else:
                other = replace(config, proxy_protocol=None)
                nursery.start_soon(self._ask, other, Clue.WANTS_NO_PROXY)

    async def _ask(self, other: ProbeConfig, clue: Clue) -> None:
        """Ask for an answer in another way."""
        self.contacts += 1
        result = await Exchanger(other).exchange(self._address, 0, trio.current_time())
        if result.name is not None:
            self.clues[clue] += 1

    async def _try(self, way: Callable[[PlainWire], Awaitable[Clue | None]]) -> None:
        """See what becomes of a connection."""
        self.contacts += 1
        source = next(iter(self._config.source_addresses), None)
        with suppress(FailureError, OSError, ValueError):  # a host may be no name for TLS
            with closing(await open_plain(self._address, source)) as wire:
                clue = await way(wire)
            if clue is not None:
                self.clues[clue] += 1

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
