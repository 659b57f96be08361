"""Keeping new connections away from a listener while its backlog is emptied."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import Final

__all__ = ["admit", "refuse_new"]

_IP_MINTTL: Final = 21
_IPV6_MINHOPCOUNT: Final = 73
"""Socket options of Linux that Python does not name."""

_MOST: Final = 255


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
        _ask_for(listener, _MOST)
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
