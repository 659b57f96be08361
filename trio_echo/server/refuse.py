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
    later, and finds the port closed or the next server there. Linux only; it
    needs no privilege. Elsewhere that instant remains.
    """
    if not sys.platform.startswith("linux"):
        return
    program = ctypes.create_string_buffer(_RETURN_ZERO)
    # struct sock_fprog: the number of instructions, a pointer to them.
    fprog = struct.pack("HP", len(_RETURN_ZERO) // 8, ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
