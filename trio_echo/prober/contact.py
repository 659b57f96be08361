"""Before the first connection: the name resolved once, and the route waited for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from trio_echo.prober.config import split_target
from trio_echo.prober.outcome import FailureError, Outcome, Result, classify
from trio_echo.text import format_address

if TYPE_CHECKING:
    from trio_echo.prober.exchange import Exchanger
    from trio_echo.prober.tally import Tally
    from trio_echo.prober.wire import Address

__all__ = ["find_address"]

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
"""Seconds between two tries while waiting: the first quickly, for a route that
is nearly there; then once a second, which burdens nobody."""


async def find_address(tally: Tally, exchanger: Exchanger) -> Address | None:
    """Find the one address that the whole probe connects to.

    A name may stand for several addresses. One of them is measured, and said,
    rather than a mixture that changes with the resolver's mood.

    Args:
        tally: takes the failure that ends the probe, and counts the connections
            that are made here.
        exchanger: for the echo that is waited for.

    Returns:
        The address, or None where there is nothing to probe.
    """
    deadline = trio.current_time() + tally.config.wait
    pause = _FIRST_PAUSE
    if tally.config.wait:
        tally.phase = "waiting"
    while True:
        failure: Result
        try:
            address = await _resolve(tally)
        except FailureError as error:
            failure = Result(error.outcome, detail=error.detail)
        else:
            tally.address = format_address(str(address[1][0]), int(address[1][1]))
            if not tally.config.wait:
                return address
            tally.contacts += 1
            failure = await exchanger.exchange(address, -tally.contacts, trio.current_time())
            if failure.outcome is Outcome.OK:
                return address
        if trio.current_time() + pause > deadline or failure.outcome is Outcome.LOCAL:
            if tally.config.wait:
                waited = f"no echo within {tally.config.wait:g} s; the last try"
                detail = f"{waited}: {failure.detail or failure.outcome}"
                failure = failure._replace(detail=detail)
            tally.fail(failure)
            return None
        await trio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _resolve(tally: Tally) -> Address:
    """Resolve the target, and of several addresses take the one that connects first.

    Raises:
        FailureError: the name does not resolve, or no address can be connected to.
    """
    host, port = split_target(tally.config.target)
    source = next(iter(tally.config.source_addresses), None)
    try:
        found = await trio.socket.getaddrinfo(
            host, port, family=tally.config.family, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        # UnicodeError: a label of the name is empty or too long for IDNA.
        detail = getattr(error, "strerror", None) or f"{host!r} is no valid host name"
        where_from = "" if source is None else f", from {source}"
        raise FailureError(Outcome.RESOLVE, f"{host}{where_from}: {detail}") from error
    addresses = {where: family for family, _, _, _, where in found}
    if len(addresses) == 1:
        [(where, family)] = addresses.items()
        return family, where
    with trio.move_on_after(tally.config.timeout):
        tally.contacts += 1
        try:
            stream = await trio.open_tcp_stream(host, port, local_address=source)
        except OSError as error:
            raise classify(error, connected=False) from error
        async with stream:
            return stream.socket.family, stream.socket.getpeername()
    raise FailureError(Outcome.CONNECT_TIMEOUT, f"no address of {host} replied")
