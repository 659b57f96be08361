"""Keeping new connections away from a listener while its backlog is emptied."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

__all__ = ["refuse_new"]

_SO_ATTACH_FILTER: Final = 26

_DROP_SYN: Final = b"".join(
    struct.pack("HBBI", *instruction)  # struct sock_filter: code, jumps if true and if false, k
    for instruction in (
        (0x30, 0, 0, 13),  # ldb [13]: the flags in the TCP header
        (0x54, 0, 0, 0x12),  # and #SYN|ACK
        (0x15, 0, 1, 0x02),  # jeq #SYN, the next, else the one after
        (0x06, 0, 0, 0),  # ret #0: drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # ret #-1: keep it whole
    )
)
"""A classic BPF program that drops the packets that ask for a new connection.

Why not ``ret 0`` alone, which drops every packet? A client whose handshake is
under way believes to be connected before its last acknowledgement is here. With
that dropped, it writes its request and reads a reset.
"""


def refuse_new(listener: socket.socket) -> None:
    """Have the kernel drop every packet that asks for a new connection.

    The connections in the backlog, and the handshakes that have begun, are not
    touched. Between accepting the last of them and closing the listener, no
    further one can slip in and be reset by the closing: a client whose first
    packet is dropped tries again a second later, and finds the port closed or
    the next server there.

    Older kernels ask for no privilege; newer ones ask for CAP_NET_ADMIN, which
    a container has not, and some runtimes know no filters. There the backlog is
    shortened to one place, which holds off all while a connection waits, and
    leaves room for a single one between the last accept and the closing. Linux
    only; elsewhere that instant remains.
    """
    if not sys.platform.startswith("linux"):
        return
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    # struct sock_fprog: the number of instructions, a pointer to them.
    fprog = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    except OSError:
        listener.listen(0)
