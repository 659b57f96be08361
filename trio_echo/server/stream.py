"""What a connection uses of its stream, and the plain loop that makes it of any trio stream.

A plain socket where there is epoll goes on the engine, `EpollStream`. All else
goes through `LoopStream`: TLS, platforms without epoll such as macOS, memory
streams in tests.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import trio

from trio_echo.server.epoll import arrived
from trio_echo.server.tls import TLSStream

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

    from trio_echo.server.epoll import Hub
    from trio_echo.server.tls import Transport

__all__ = ["LoopStream", "Stream", "Streams"]

_SLICE: Final = 16 * 1024
"""Bytes sent at once, so that a client that reads slowly is seen to move."""


class Stream(Protocol):
    """One connection's stream; see `EpollStream` for what each word promises."""

    @property
    def received(self) -> int:
        """Bytes received so far, above TLS."""

    @property
    def sent(self) -> int:
        """Bytes sent so far, above TLS."""

    @property
    def moved(self) -> int:
        """Bytes that the socket received and sent so far, those of TLS included."""

    @property
    def blocked(self) -> bool:
        """Whether part of an answer waits for the client to read."""

    @property
    def unsent(self) -> int:
        """Bytes of that part which are kept here, not by the kernel."""

    def pending(self) -> bool:
        """Tell whether something has arrived, or begun to, that was not received."""

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

    def interrupt(self, error: Exception, /) -> bool:
        """Raise an exception in the task that waits on this stream; tell if one did."""

    def close(self) -> None:
        """Close at once, without a checkpoint."""


class Streams:
    """Makes the streams of one server's connections.

    Args:
        hub: of the engine; None where there is no epoll.
        context: for TLS; None where no port speaks it.
    """

    def __init__(self, hub: Hub | None, context: ssl.SSLContext | None) -> None:
        self._hub = hub
        self._context = context

    def carry(self, sock: socket.SocketType) -> Stream:
        """Make the stream of a connected, non-blocking socket, which it owns from now on."""
        if self._hub is not None:
            return self._hub.stream(sock)
        wrapped = trio.socket.socket(fileno=sock.detach())
        return LoopStream(trio.SocketStream(wrapped), wrapped.close, partial(arrived, wrapped))

    def secure(self, stream: Stream, received: bytes = b"") -> Stream:
        """Make the stream that speaks TLS over another, which it owns from now on.

        Args:
            stream: has received nothing of TLS but `received`.
            received: the beginning of TLS.
        """
        assert self._context is not None  # noqa: S101 - only ever called where a port speaks TLS
        tls = TLSStream(stream, self._context, received)
        secured = LoopStream(tls, stream.close, stream.pending)
        secured.received = stream.received - len(received)  # a counter never falls
        return secured


class LoopStream:
    """Any stream as a `Stream`, with one generic loop.

    Args:
        stream: owned by this object from now on.
        close: closes what is under it at once, without a checkpoint.
        arrived: tells whether there is something to receive under it.

    Attributes:
        received: bytes received so far, above TLS.
        sent: bytes sent so far, above TLS.
        unsent: bytes of the answer that is being sent.
    """

    def __init__(
        self,
        stream: Transport,
        close: Callable[[], None],
        arrived: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._close = close
        self._arrived = arrived
        self._scope: trio.CancelScope | None = None
        self._interruption: Exception | None = None
        self._late = b""
        self.received = 0
        self.sent = 0
        self.unsent = 0

    @property
    def blocked(self) -> bool:
        """Whether an answer is being sent."""
        return self.unsent > 0

    @property
    def moved(self) -> int:
        """Bytes that the socket received and sent so far, those of TLS included."""
        if isinstance(self._stream, TLSStream):
            return self._stream.moved
        return self.received + self.sent

    def pending(self) -> bool:
        """Tell whether something has arrived, or begun to, that was not received."""
        amid = isinstance(self._stream, TLSStream) and self._stream.amid
        return bool(self._late) or amid or self._arrived()

    def begin(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Do nothing: any stream's receiving takes a task."""

    async def relay(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Put every chunk that arrives through `feed`, and send what it returns.

        The contract is that of `EpollStream.relay`, but for one point: when
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
        with self._interruptible():
            tls = self._stream if isinstance(self._stream, TLSStream) else None
            # Not `blocked` by then: it is not for the client to read that this waits.
            if tls is not None and not tls.agreed and not await tls.handshake():
                return  # the next receive finds the end of file
            self.unsent = len(data)
            for start in range(0, len(data), _SLICE):
                part = data[start : start + _SLICE]
                await self._stream.send_all(part)
                self.sent += len(part)
                self.unsent -= len(part)

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes."""
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
