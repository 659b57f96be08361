"""Accepting connections: by the batch, within the limits, whatever fails."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

import trio

from trio_echo.log import Log

if TYPE_CHECKING:
    from trio_echo.server.connections import Connections
    from trio_echo.server.listeners import Listener

__all__ = ["Acceptor", "reset"]

_BATCH: Final = 64
"""Connections taken from one backlog before others have a turn."""

_BACK_OFF: Final = 0.1
"""Seconds to wait when the system has no descriptor or memory for one more."""

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_log = Log()


class Acceptor:
    """Takes the connections of one listener from its backlog.

    It drains the backlog from the raw socket until that would block, straight
    into handler tasks. At the limit it stops, and the backlog waits: nobody is
    reset.
    """

    def __init__(self, listener: Listener, connections: Connections) -> None:
        self.listener = listener
        self._sock = listener.sock
        self._kind = (int(self._sock.family), int(self._sock.type), self._sock.proto)
        self._connections = connections
        self._exhausted = False
        self._beyond_limit = False

    async def run(self) -> None:
        """Accept until cancelled."""
        while True:
            await self._connections.wait_for_place()
            await trio.lowlevel.wait_readable(self._sock)
            await self._take_batch()

    async def take_all(self) -> None:
        """Take the whole backlog, at the limit of connections too: the rest waits in line."""
        self._beyond_limit = True
        while not await self._take_batch():
            pass

    def refuse_waiting(self) -> int:
        """Reset what is in the backlog, and tell how many those were; none of a closed listener."""
        count = 0
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError as error:
                # Else it is one that has been broken in the backlog.
                if error.errno in _EXHAUSTED | {errno.EAGAIN, errno.EBADF}:
                    return count
            else:
                reset(sock)
                count += 1

    def close(self) -> None:
        """Close the listener."""
        self._sock.close()

    async def _take_batch(self) -> bool:
        """Accept what is there, a batch at most; tell whether that was all."""
        for _ in range(_BATCH):
            if self._connections.full and not self._beyond_limit:
                return False
            try:
                descriptor, client = self._sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - see below
            except BlockingIOError:
                self._exhausted = False
                return True
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    await self._back_off(error)
                # Else it is a fault of that one connection, which has been
                # broken while it waited (see accept(2)): on to the next.
            else:
                # What socket.accept does, less its conversions of family and
                # type to enums and the class around the C one: 5 us, not 10.
                sock = socket.SocketType(*self._kind, descriptor)
                sock.setblocking(False)
                self._connections.start(sock, self.listener, client)
        await trio.lowlevel.checkpoint()
        return False

    async def _back_off(self, error: OSError) -> None:
        """Wait for descriptors to come free; warn once until the backlog is empty again."""
        if not self._exhausted:
            self._exhausted = True
            _log.warning(
                "cannot accept for now, clients wait in the backlog; raise the limit of"
                " open files or lower --max-connections",
                listener=str(self.listener),
                error=os.strerror(error.errno or 0),
            )
        await trio.sleep(_BACK_OFF)


def reset(sock: socket.SocketType) -> None:
    """Close a connection so that the client learns at once that nothing will come."""
    # struct linger: on, for no time.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
