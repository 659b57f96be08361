"""What the handler sees of a connection, whatever carries it.

There are two kinds, and `trio_echo.server.accept` chooses between them in one
place: `EdgeStream` for a plain socket where there is epoll, and
`StreamTransport`, one generic loop, for everything else: TLS, platforms
without epoll, memory streams in tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StreamTransport", "Transport"]

_SLICE: Final = 16 * 1024
"""Bytes sent at once, so that a client that reads slowly is seen to move."""


class Transport(Protocol):
    """One connection, as the handler uses it; see `EdgeStream` for the words."""

    @property
    def received(self) -> int:
        """Bytes received so far."""

    @property
    def sent(self) -> int:
        """Bytes sent so far."""

    @property
    def blocked(self) -> bool:
        """Whether part of an answer waits for the client to read."""

    async def relay(self, feed: Callable[[bytes], bytes], chunk_size: int, /) -> None:
        """Put every chunk that arrives through `feed`, send what it returns, until the end."""

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        """Receive at least one byte, or none at the end of file."""

    async def send_all(self, data: bytes, /) -> None:
        """Send all of `data`."""

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes, where the stream can."""

    async def aclose(self) -> None:
        """Close as the stream's protocol asks for."""

    def close(self) -> None:
        """Close at once, without a checkpoint."""


class StreamTransport:
    """Any trio stream as a `Transport`.

    Args:
        stream: owned by this object from now on.
        close: closes what is under it at once, without a checkpoint.

    Attributes:
        received: bytes received so far; above TLS, where there is any.
        sent: bytes sent so far; the same.
        blocked: whether an answer is being sent.
    """

    def __init__(self, stream: trio.abc.Stream, close: Callable[[], object]) -> None:
        self._stream = stream
        self._close = close
        self.received = 0
        self.sent = 0
        self.blocked = False

    async def relay(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Put every chunk that arrives through `feed`, and send what it returns.

        The contract is that of `EdgeStream.relay`, but for one point: when
        cancelled from the start it may leave what has arrived unread.
        """
        while chunk := await self.receive_some(chunk_size):
            if answer := feed(chunk):
                await self.send_all(answer)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or none at the end of file."""
        chunk = bytes(await self._stream.receive_some(max_bytes))
        self.received += len(chunk)
        return chunk

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`; after a cancellation, a part of it may be sent."""
        self.blocked = True
        for start in range(0, len(data), _SLICE):
            part = data[start : start + _SLICE]
            await self._stream.send_all(part)
            self.sent += len(part)
        self.blocked = False

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes; TLS says so when it closes."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close as the stream's protocol asks for: TLS says goodbye."""
        await self._stream.aclose()

    def close(self) -> None:
        """Close at once, without a checkpoint."""
        self._close()
