"""One connection's conversation, from its first byte to its polite end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from trio_echo.framing import LineTooLongError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_echo.framing import Framer
    from trio_echo.server.metrics import Reason
    from trio_echo.server.transport import Transport

__all__ = ["converse", "end_politely"]

LINGER: Final = 2.0
"""Seconds that a client gets to read the last answer and end its side."""


async def converse(
    transport: Transport, framer: Framer, feed: Callable[[bytes], bytes] | None = None
) -> Reason:
    """Answer line after line, until the client ends or breaks the contract.

    Args:
        transport: the connection; still open at the end, in either direction.
        framer: fresh.
        feed: what to put the chunks through, `framer.feed` in some wrapping;
            None for just that.

    Returns:
        ``eof`` or ``line-too-long``. Every answer is sent by then.

    Raises:
        trio.BrokenResourceError: the client broke the connection.
    """
    try:
        await transport.relay(feed or framer.feed, framer.chunk_size)
    except LineTooLongError as error:
        await transport.send_all(error.answer)
        await end_politely(transport)
        return "line-too-long"
    if rest := framer.end():
        await transport.send_all(rest)
    return "eof"


async def end_politely(transport: Transport) -> None:
    """End a connection whose client has not, so that it reads all it was sent.

    A close with unread input, or with input still on its way, would have the
    kernel send a reset, and a reset destroys answers that the client has not
    read. So: end this side, read the client's away until it ends too, within
    `LINGER` seconds.
    """
    with trio.move_on_after(LINGER):
        await transport.send_eof()
        while await transport.receive_some():
            pass
