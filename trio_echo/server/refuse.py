"""Keeping new connections away from a listener while its backlog is emptied."""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

__all__ = ["refuse_new"]

_SO_ATTACH_FILTER: Final = 26
_RETURN_ZERO: Final = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A classic BPF program of one instruction, ``ret 0``: keep no byte of any packet."""


def refuse_new(listener: socket.socket) -> None:
    """Have the kernel drop every packet that would open a connection.

    The connections in the backlog are not touched. Between accepting the last
    of them and closing the listener, no further one can slip in and be reset
    by the closing: a client whose first packet is dropped tries again a second
    later, and finds the port closed or the next server there.

    Older kernels ask for no privilege; newer ones ask for CAP_NET_ADMIN, which
    a container has not, and some runtimes forbid it. There the backlog is
    shortened to one place, which holds off all while a connection waits, and
    leaves room for a single one between the last accept and the closing.
    Linux only; elsewhere that instant remains.
    """
    if not sys.platform.startswith("linux"):
        return
    program = ctypes.create_string_buffer(_RETURN_ZERO)
    # struct sock_fprog: the number of instructions, a pointer to them.
    fprog = struct.pack("HP", len(_RETURN_ZERO) // 8, ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    except OSError:
        listener.listen(0)
