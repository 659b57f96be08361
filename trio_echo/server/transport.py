"""What the handler sees of a connection, whatever carries it.

There are two kinds, and a `Carrier` chooses between them: `EdgeStream` for a
plain socket where there is epoll, and `StreamTransport`, one generic loop, for
everything else: TLS, platforms without epoll, memory streams in tests.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trio_echo.server.edge import EdgeStream
from trio_echo.server.tls import TLSStream

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

    from trio_echo.server.hub import Hub

__all__ = ["Carrier", "StreamTransport", "Transport"]

_GOODBYE: Final = 2.0
"""Seconds that a goodbye may take."""

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

    def begin(self, feed: Callable[[bytes], bytes], chunk_size: int, /) -> None:
        """Do of a `relay` that is to come what can be done without a task."""

    async def relay(self, feed: Callable[[bytes], bytes], chunk_size: int, /) -> None:
        """Put every chunk that arrives through `feed`, send what it returns, until the end."""

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes:
        """Receive at least one byte, or none at the end of file."""

    async def send_all(self, data: bytes, /) -> None:
        """Send all of `data`."""

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes, where the stream can."""

    async def finish(self) -> None:
        """Say goodbye to a client that has ended, where the protocol has words for it."""

    def interrupt(self, error: Exception, /) -> bool:
        """Raise an exception in the task that waits on this stream; tell if one did."""

    def close(self) -> None:
        """Close at once, without a checkpoint."""


class Carrier:
    """Makes a transport of an accepted socket.

    Args:
        hub: carries plain connections; None where there is no epoll.
        context: for connections that speak TLS; None if none do.
    """

    def __init__(self, hub: Hub | None, context: ssl.SSLContext | None) -> None:
        self._hub = hub
        self._context = context

    def carry(self, sock: socket.SocketType, *, tls: bool) -> Transport:
        """Choose what carries a connection. The transport owns the socket from now on."""
        stream: EdgeStream | trio.SocketStream
        if self._hub is not None:
            stream = EdgeStream(self._hub, sock)
            if not tls:
                return stream
            close = stream.close
        else:
            wrapped = trio.socket.socket(fileno=sock.detach())
            stream = trio.SocketStream(wrapped)
            close = wrapped.close
        if self._context is None or not tls:
            return StreamTransport(stream, close)
        return StreamTransport(TLSStream(stream, self._context), close)


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

    def __init__(self, stream: trio.abc.HalfCloseableStream, close: Callable[[], None]) -> None:
        self._stream = stream
        self._close = close
        self._scope: trio.CancelScope | None = None
        self._interruption: Exception | None = None
        self._late = b""
        self.received = 0
        self.sent = 0
        self.blocked = False

    def begin(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Do nothing: any stream's receiving takes a task."""

    async def relay(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Put every chunk that arrives through `feed`, and send what it returns.

        The contract is that of `EdgeStream.relay`, but for one point: when
        cancelled from the start, it leaves what has arrived unread.
        """
        while chunk := await self.receive_some(chunk_size):
            if answer := feed(chunk):
                await self.send_all(answer)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or none at the end of file."""
        if self._late:
            chunk, self._late = self._late, b""
            return chunk
        with self._interruptible():
            chunk = bytes(await self._stream.receive_some(max_bytes))
            self.received += len(chunk)
            # Where it came as `interrupt` was called, it is for the next call.
            if self._interruption is not None:
                self._late = chunk
        return chunk

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`; after a cancellation, a part of it may be sent."""
        self.blocked = True
        with self._interruptible():
            for start in range(0, len(data), _SLICE):
                part = data[start : start + _SLICE]
                await self._stream.send_all(part)
                self.sent += len(part)
        self.blocked = False

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes."""
        await self._stream.send_eof()

    async def finish(self) -> None:
        """Say goodbye to a client that has ended: TLS has words for it."""
        with trio.move_on_after(_GOODBYE), suppress(trio.BrokenResourceError):
            await self._stream.send_eof()

    def interrupt(self, error: Exception) -> bool:
        """Raise an exception in the task that waits on this stream; tell if one did."""
        if self._scope is None:
            return False
        self._interruption = error
        self._scope.cancel()
        return True

    def close(self) -> None:
        """Close at once, without a checkpoint."""
        self._close()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Raise what `interrupt` was given out of the block, if it was called meanwhile."""
        with trio.CancelScope() as self._scope:
            yield
        self._scope = None
        if self._interruption is not None:
            error, self._interruption = self._interruption, None
            raise error
