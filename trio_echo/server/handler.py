"""One connection's conversation, from its first byte to its polite end."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trio_echo.framing import LineTooLongError

if TYPE_CHECKING:
    from trio_echo.framing import Framer
    from trio_echo.server.metrics import Reason
    from trio_echo.server.transport import Transport

__all__ = ["QUIET", "EndedError", "converse", "end_politely"]

QUIET: Final = 0.5
"""Seconds without a byte after which a drain takes a client to be done."""

_LAST_CALL: Final = 0.1
"""Seconds that it then waits for what may have arrived unseen, on a busy machine."""

LINGER: Final = 2.0
"""Seconds that a client gets to read the last answer and end its side."""


class EndedError(Exception):
    """Raised in a conversation, through `Transport.interrupt`: the server ends it.

    Args:
        reason: ``drain`` or ``idle``.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


async def converse(transport: Transport, framer: Framer) -> Reason:
    """Answer line after line, until the client ends or breaks the contract.

    Args:
        transport: the connection; left for the caller to close.
        framer: fresh.

    Returns:
        ``eof``, ``line-too-long``, or the reason of an `EndedError`. Every
        answer is sent by then; but of ``idle``, which may be that the client
        does not read. Where the client has not ended, `end_politely` is next.

    Raises:
        trio.BrokenResourceError: the client broke the connection.
        HandshakeError: there is no TLS with this client, which was told why;
            `end_politely` gives it the time to read that.
    """
    try:
        return await _converse(transport, framer)
    except EndedError as ended:
        # Idle; amid the last words too, when the client does not read them.
        return ended.reason


async def _converse(transport: Transport, framer: Framer) -> Reason:
    """Do what `converse` says, up to an `EndedError` that leaves nothing to say."""
    try:
        try:
            await transport.relay(framer.feed, framer.chunk_size)
        except EndedError as ended:
            if ended.reason != "drain":
                raise
            if await _last_call(transport, framer):
                return "drain"
    except LineTooLongError as error:
        await transport.send_all(error.answer)
        return "line-too-long"
    if rest := framer.end():
        await transport.send_all(rest)
    await transport.finish()
    return "eof"


async def _last_call(transport: Transport, framer: Framer) -> bool:
    """Answer what has arrived, and was so accepted; tell if the client goes on.

    Only the receiving is under a deadline, which loses nothing; an answer that
    has begun is sent whole. A client that does speak up is served until it is
    quiet again.
    """
    patience = _LAST_CALL
    while True:
        with trio.move_on_after(patience) as scope:
            chunk = await transport.receive_some(framer.chunk_size)
        if scope.cancelled_caught:
            return True
        if not chunk:
            return False
        if answer := framer.feed(chunk):
            await transport.send_all(answer)
        patience = math.inf if framer.partial else QUIET


async def end_politely(transport: Transport) -> None:
    """End a connection whose client has not, so that it reads all it was sent.

    A close with unread input, or with input still on its way, has the kernel
    send a reset, and a reset destroys answers that the client has not read. So
    this side ends, and reads the client's away until that ends too, for
    `LINGER` seconds at most; less if an `EndedError` finds it quiet.
    """
    with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError, EndedError):
        await transport.send_eof()
        while await transport.receive_some():
            pass
