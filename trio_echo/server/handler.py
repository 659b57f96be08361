"""One connection's conversation, from its first byte to its polite end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trio_echo.framing import LineTooLongError
from trio_echo.server.tls import HandshakeError

if TYPE_CHECKING:
    from trio_echo.framing import Framer
    from trio_echo.server.metrics import Reason
    from trio_echo.server.transport import Transport

__all__ = ["EndedError", "converse"]

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
        answer is sent by then, and the client has been told of the end; but of
        ``idle``, which may be that it does not read.

    Raises:
        trio.BrokenResourceError: the client broke the connection.
        HandshakeError: there is no TLS with this client; it had time to read why.
    """
    try:
        try:
            await transport.relay(framer.feed, framer.chunk_size)
        except EndedError as ended:
            if ended.reason == "idle":
                return "idle"
            if await _last_call(transport, framer):
                await _end_politely(transport)
                return "drain"
    except HandshakeError:
        await _end_politely(transport)
        raise
    except LineTooLongError as error:
        await transport.send_all(error.answer)
        await _end_politely(transport)
        return "line-too-long"
    if rest := framer.end():
        await transport.send_all(rest)
    await transport.finish()
    return "eof"


async def _last_call(transport: Transport, framer: Framer) -> bool:
    """Answer what has arrived, and was so accepted; tell if the client goes on."""
    # Twice: a short receive passes for all there is, and an end of file that
    # has arrived behind it is only seen by the next.
    for _ in range(2):
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.relay(framer.feed, framer.chunk_size)
        if not scope.cancelled_caught:
            return False
    return True


async def _end_politely(transport: Transport) -> None:
    """End a connection whose client has not, so that it reads all it was sent.

    A close with unread input, or with input still on its way, has the kernel
    send a reset, and a reset destroys answers that the client has not read. So
    this side ends, and reads the client's away until that ends too, for
    `LINGER` seconds at most.
    """
    with trio.move_on_after(LINGER), suppress(trio.BrokenResourceError):
        await transport.send_eof()
        while await transport.receive_some():
            pass
