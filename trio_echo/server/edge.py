"""Streams over one edge-triggered epoll: the heart of the server.

On trio's own streams most of what a line costs is waiting for it: a one-shot
registration armed and disarmed, and a task switch, for each chunk. These
streams wait on a `Hub`, which saves the former, and have `relay`, which saves
the latter: a handler task parks in it, and while it is parked the hub
receives, transforms and sends on its behalf. The task wakes only for what
needs a task: end of file, a client that does not read, an error, a
cancellation.

Server CPU per line, one line per round trip on 50 connections, in one run of
``nox -s bench``: 34 us with trio's own streams and a send per line, 9 us here.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import outcome
import trio

from trio_echo.server.hub import HubSocket, closed_error, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_echo.server.hub import Hub

__all__ = ["EdgeStream"]

_CHUNKS_PER_TURN: Final = range(4)
"""Chunks that one connection may have answered before the others have a turn:
at most 256 KiB received, a few hundred microseconds."""

# What a turn of a stream ended with.
_DRAINED: Final = 0  # all that had arrived is answered
_MORE: Final = 1  # its turn is over, and there may be more
_BLOCKED: Final = 2  # the client does not read: part of an answer is stuck
_EOF: Final = 3  # the client will send no more


class EdgeStream(HubSocket, trio.abc.HalfCloseableStream):
    """A connected socket on a hub: a trio stream, and `relay`.

    It is registered with the hub when it first has to wait; a client that has
    sent its line and gone before that costs no registration.

    Args:
        hub: one whose `Hub.run` is running.
        sock: connected and non-blocking; the stream owns it from now on.

    Attributes:
        received: bytes received so far.
        sent: bytes that the kernel has taken for sending so far.
    """

    __slots__ = (
        "_begun",
        "_chunk_size",
        "_eof_sent",
        "_feed",
        "_unsent",
        "received",
        "sent",
    )

    def __init__(self, hub: Hub, sock: socket.SocketType) -> None:
        super().__init__(hub, sock)
        self._begun: outcome.Outcome[int] | None = None
        self._chunk_size = 0
        self._eof_sent = False
        self._feed: Callable[[bytes], bytes] | None = None
        self._unsent: memoryview | None = None
        self.received = 0
        self.sent = 0

    @property
    def blocked(self) -> bool:
        """Whether part of an answer waits for the client to read."""
        return self._unsent is not None

    async def relay(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Put every chunk that arrives through `feed`, and send what it returns.

        Returns at the client's end of file. Back-pressure is kept: while the
        client does not read, it is not read from. What has arrived already is
        answered before the first checkpoint, even when cancelled.

        Args:
            feed: called by this task or the hub's, never by both at once.
            chunk_size: the most bytes to receive at once.

        Raises:
            trio.BrokenResourceError: the client broke the connection.
            trio.ClosedResourceError: another task closed this stream.
            trio.BusyResourceError: another task is receiving.
            Exception: whatever `feed` raised; the chunk is lost.

        After a cancellation every chunk received has been through `feed`, but
        of the last answer a part may be unsent: only close it then. If nothing
        was `blocked`, nothing is unsent, and `relay` may be called again.
        """
        self._check_receiver()
        self._feed, self._chunk_size = feed, chunk_size
        begun, self._begun = self._begun, None
        try:
            while True:
                if begun is None:
                    state = self._pump()
                else:
                    state, begun = begun.unwrap(), None
                if state == _DRAINED:
                    state = await trio.lowlevel.wait_task_rescheduled(self._as_reader())
                if state == _EOF:
                    return
                if state == _BLOCKED:
                    await self._send_rest()
                else:
                    await trio.lowlevel.checkpoint()
        finally:
            self._feed = None

    def begin(self, feed: Callable[[bytes], bytes], chunk_size: int) -> None:
        """Do the first turn of a `relay` that is to come, before its task has a turn.

        The acceptor does this for clients that have sent already. Many have
        read the answer and left when the task gets its turn, which then finds
        the end of file without having to wait: 42 us in place of 50 for a
        client that connects, sends a line and leaves.

        What fails in here, `relay` raises.
        """
        self._feed, self._chunk_size = feed, chunk_size
        try:
            state = self._pump()
        except Exception as error:  # noqa: BLE001 - raised where it belongs, in the handler task
            self._begun = outcome.Error(error)
        else:
            # Whatever else there is to receive is for `relay` to find.
            if state in (_BLOCKED, _EOF):
                self._begun = outcome.Value(state)
        self._feed = None

    def _pump(self) -> int:
        """Answer what has arrived, as far as one turn goes. No checkpoint.

        This is all that happens to a line between epoll and the kernel's send
        buffer; nothing is in here that does not need to be.
        """
        feed, size = self._feed, self._chunk_size
        assert feed is not None  # noqa: S101 - only ever called while relaying
        for _ in _CHUNKS_PER_TURN:
            try:
                chunk = self._sock.recv(size)
            except BlockingIOError:
                return _DRAINED
            except OSError as error:
                raise translated(error) from error
            if not chunk:
                return _EOF
            self.received += len(chunk)
            answer = feed(chunk)
            if answer:
                try:
                    sent = self._sock.send(answer)
                except BlockingIOError:
                    sent = 0
                except OSError as error:
                    raise translated(error) from error
                self.sent += sent
                if sent != len(answer):
                    self._unsent = memoryview(answer)[sent:]
                    return _BLOCKED
            # A short receive has drained the socket, and saves the one that
            # would say so by blocking; unless a mark made it short.
            if len(chunk) < size and not self._marked:
                return _DRAINED
        return _MORE

    def turn(self) -> None:
        """Serve the parked reader in the hub's task: relay, or wake it."""
        if self._reader is None:
            return
        result: outcome.Outcome[int]
        if self._feed is None:
            result = outcome.Value(_DRAINED)
        else:
            try:
                state = self._pump()
            except Exception as error:  # noqa: BLE001 - raised where it belongs, in the handler task
                result = outcome.Error(error)
            else:
                if state == _DRAINED:
                    return
                if state == _MORE:
                    self._hub.finish_later(self)
                    return
                result = outcome.Value(state)
        task, self._reader = self._reader, None
        trio.lowlevel.reschedule(task, result)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or none at the end of file."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        self._check_receiver()
        await trio.lowlevel.checkpoint()
        while True:
            self._check_receiver()
            try:
                chunk = self._sock.recv(max_bytes or 65_536)
            except BlockingIOError:
                await trio.lowlevel.wait_task_rescheduled(self._as_reader())
            except OSError as error:
                raise translated(error) from error
            else:
                self.received += len(chunk)
                return chunk

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; after a cancellation, a part of it may be sent."""
        self._check_sender()
        self._unsent = memoryview(data)
        try:
            await trio.lowlevel.checkpoint()
            await self._send_rest()
        finally:
            self._unsent = None

    async def _send_rest(self) -> None:
        """Send what is unsent, as the client makes room for it."""
        try:
            while self._unsent:
                try:
                    sent = self._sock.send(self._unsent)
                except BlockingIOError:
                    await trio.lowlevel.wait_task_rescheduled(self._as_writer())
                except OSError as error:
                    raise translated(error) from error
                else:
                    self.sent += sent
                    self._unsent = self._unsent[sent:]
        finally:
            self._unsent = None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room for something."""
        self._check_sender()
        self._unsent = memoryview(b"")  # marks this stream as busy sending
        try:
            await trio.lowlevel.wait_task_rescheduled(self._as_writer())
        finally:
            self._unsent = None

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes; it may go on sending."""
        if self._unsent is not None:
            raise trio.BusyResourceError("another task is sending")
        if not self._eof_sent:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                raise translated(error) from error
            self._eof_sent = True
        await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """Do nothing: the end of a TCP connection is its close. No checkpoint."""

    async def aclose(self) -> None:
        """Close at once, as `close` does, even when cancelled."""
        self.close()
        await trio.lowlevel.checkpoint()

    def _check_receiver(self) -> None:
        if self._sock.fileno() < 0:
            raise closed_error()
        if self._reader is not None or self._feed is not None:
            raise trio.BusyResourceError("another task is receiving")

    def _check_sender(self) -> None:
        if self._sock.fileno() < 0:
            raise closed_error()
        if self._eof_sent:
            raise trio.ClosedResourceError("the end of file is sent, nothing may follow it")
        if self._unsent is not None:
            raise trio.BusyResourceError("another task is sending")
