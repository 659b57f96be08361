"""One connection's conversation, from its first byte to its polite end."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trio_echo.framing import LineTooLongError

if TYPE_CHECKING:
    from trio_echo.framing import Framer
    from trio_echo.server.metrics import Reason
    from trio_echo.server.transport import Transport

__all__ = ["converse", "end_politely"]

LINGER: Final = 2.0
"""Seconds that a client gets to read the last answer and end its side."""


async def converse(transport: Transport, framer: Framer) -> Reason:
    """Answer line after line, until the client ends or breaks the contract.

    Args:
        transport: the connection; left for the caller to close.
        framer: fresh.

    Returns:
        ``eof`` or ``line-too-long``. Every answer is sent by then, and the
        client has been told of the end.

    Raises:
        trio.BrokenResourceError: the client broke the connection.
    """
    try:
        await transport.relay(framer.feed, framer.chunk_size)
    except LineTooLongError as error:
        await transport.send_all(error.answer)
        await end_politely(transport)
        return "line-too-long"
    if rest := framer.end():
        await transport.send_all(rest)
    await transport.finish()
    return "eof"


async def end_politely(transport: Transport) -> None:
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
