"""Accepting connections: by the batch, within the limits, to the last one of a drain."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trio_echo.log import Log

if TYPE_CHECKING:
    from trio_echo.server.connections import Connections
    from trio_echo.server.listeners import Listener

__all__ = ["Acceptor", "admit", "refuse_new"]

_BATCH: Final = 64
"""Connections taken from one backlog before others have a turn."""

_BACK_OFF: Final = 0.1
"""Seconds to wait when the system has no descriptor or memory for one more."""

_HANDSHAKE: Final = 0.1
"""Seconds that a handshake which has begun gets for its last step, half a round trip."""

_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_IP_MINTTL: Final = 21
_IPV6_MINHOPCOUNT: Final = 73
"""Socket options of Linux that Python does not name."""

_MOST_HOPS: Final = 255

_log = Log()


class Acceptor:
    """Takes the connections of one listener from its backlog.

    It drains the backlog from the raw socket until that would block, straight
    into handler tasks. At the limit it stops, and the backlog waits: nobody is
    reset.
    """

    def __init__(self, listener: Listener, connections: Connections) -> None:
        self._listener = listener
        self._sock = listener.sock
        self._kind = (int(self._sock.family), int(self._sock.type), self._sock.proto)
        self._connections = connections
        self._exhausted = False
        self._refusing = False

    async def run(self) -> None:
        """Accept until cancelled."""
        while True:
            await self._connections.wait_for_place()
            await trio.lowlevel.wait_readable(self._sock)
            await self._take_batch()

    async def finish(self) -> None:
        """Accept what is in the backlog or on its way there, then close the listener.

        The listener refuses new connections by now.

        To close it at once would reset clients that are connected already, or
        believe so: theirs is the last step of the handshake.
        """
        self._refusing = True
        with trio.move_on_after(_HANDSHAKE):
            await self.run()
        while not await self._take_batch():
            await self._connections.wait_for_place()
        self._sock.close()

    async def _take_batch(self) -> bool:
        """Accept what is there, a batch at most; tell whether that was all."""
        for _ in range(_BATCH):
            if self._connections.full:
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
                if self._refusing:
                    admit(sock)
                self._connections.start(sock, self._listener, client)
        await trio.lowlevel.checkpoint()
        return False

    async def _back_off(self, error: OSError) -> None:
        """Wait for descriptors to come free; warn once until the backlog is empty again."""
        if not self._exhausted:
            self._exhausted = True
            _log.warning(
                "cannot accept for now, clients wait in the backlog; raise the limit of"
                " open files or lower --max-connections",
                listener=str(self._listener),
                error=os.strerror(error.errno or 0),
            )
        await trio.sleep(_BACK_OFF)


def refuse_new(listener: socket.socket) -> None:
    """Have the kernel drop every packet that asks for a new connection.

    The connections in the backlog, and the handshakes that have begun, are not
    touched. Between accepting the last of them and closing the listener, no
    further one can slip in and be reset by the closing: a client whose first
    packet is dropped tries again a second later, and finds the port closed or
    the next server there. What is accepted from now on needs `admit`.

    It asks for packets that no router has passed on (RFC 5082): they start with
    a time to live of 255, and those of an ordinary client with 64 or 128. The
    kernel does not ask that of the last step of a handshake.

    Why not a socket filter? ``ret 0``, which drops every packet, drops that last
    step too, and so resets a client that believes to be connected; and newer
    kernels want CAP_NET_ADMIN for any filter, which a container has not.

    Where even this is forbidden, the backlog is shortened to one place, which
    holds off all while a connection waits, and leaves room for a single one
    between the last accept and the closing. Linux only; elsewhere that instant
    remains.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        _ask_for(listener, _MOST_HOPS)
    except OSError:
        listener.listen(0)


def admit(sock: socket.SocketType) -> None:
    """Take packets of a connection that came of a handshake under way at `refuse_new`.

    It has inherited the listener's demand. What was dropped meanwhile is sent
    again by the client, after 0.2 seconds.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError):  # then `refuse_new` was refused it, too
            _ask_for(sock, 0)


def _ask_for(sock: socket.SocketType, time_to_live: int) -> None:
    """Drop packets with less than that, but for the last step of a handshake."""
    # An IPv6 socket may have IPv4 clients.
    sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, time_to_live)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, time_to_live)
