"""The memory limit: what it is, how much of it is used, and how soon to look again.

The kernel kills a container that reaches its memory limit, whoever filled it. So
the server ends those connections that hold the most before that, and everybody
else is served on.

What counts against the limit is measured, not computed: connections are one part
of it beside the interpreter, its allocator's losses, and, in a cgroup of version 2,
the kernel's socket buffers. Between two looks, memory can grow as fast as a network
delivers, so the time between looks is the room that is left, at that pace.
"""

from __future__ import annotations

import ctypes
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

from trio_echo.errors import ConfigError

__all__ = ["Memory", "find_memory", "give_back", "pause"]

_SHARE: Final = 0.75
"""The part of the limit that is used before connections are ended; the rest is
for what comes between two looks."""

_PACE: Final = 1_000_000_000
"""Bytes by which memory may grow within a second."""

_OFTEN, _RARELY = 0.01, 1.0
"""Seconds between two looks, at least and at most."""

_UNLIMITED: Final = 1 << 60
"""More than this is how version 1 says that there is no limit."""

_PER_CONNECTION: Final = 8 * 1024
"""Bytes to be reckoned for a connection that holds nothing: 3.6 KiB here, and
about as much in the kernel."""


_CLIENTS: Final = 8192
"""The part of the limit that either buffer of a client may hold. The kernel takes
twice of what it is told for its own needs: 1,000 clients that fill both hold half
of the limit."""

_LEAST_BUFFER: Final = 16 * 1024
"""Bytes of a buffer that is good for anything."""


class Memory:
    """A limit, and the files that tell what is used of it.

    Args:
        limit: in bytes.
        used: file with the number of bytes in use; or ``statm`` of a process.
        statistics: file that tells how much of that is page cache, which the
            kernel takes back when it needs to; None where none is in the number.
        sockets: whether the kernel's socket buffers are in the number.

    Attributes:
        limit: in bytes.
    """

    def __init__(
        self, limit: int, used: Path, statistics: Path | None = None, *, sockets: bool = False
    ) -> None:
        self.limit = limit
        self._used = used
        self._statistics = statistics
        self._sockets = sockets

    def bound_buffers(self, listener: socket.socket) -> None:
        """Bound what the kernel buffers for each client of a listener, where that counts.

        It lets one that is not read from fill some megabytes, and one that does
        not read too: a hundred of them would use the limit up between two looks.
        """
        if self._sockets:
            size = max(self.limit // _CLIENTS, _LEAST_BUFFER)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

    def used(self) -> int:
        """Tell how many bytes are in use and cannot be taken back."""
        words = self._used.read_text("ascii").split()
        if len(words) > 1:  # statm: pages of the program, then those resident
            return int(words[1]) * os.sysconf("SC_PAGE_SIZE")
        used = int(words[0])
        # The statistics take the kernel ten times as long as the number.
        if self._statistics is not None and used > self.limit * _SHARE:
            cache = 0
            for line in self._statistics.read_text("ascii").splitlines():
                name, _, value = line.partition(" ")
                if name in {"inactive_file", "total_inactive_file"}:
                    cache = int(value)
            used -= cache
        return used

    def spare(self) -> int:
        """Tell how many bytes more may be used; below 0, that much has to be freed."""
        return int(self.limit * _SHARE) - self.used()

    def places(self) -> int:
        """Tell how many connections that hold nothing fit."""
        return max(1, self.spare() // _PER_CONNECTION)


def pause(spare: int) -> float:
    """Tell for how many seconds no look is needed, with so many bytes to spare."""
    return min(max(spare / _PACE, _OFTEN), _RARELY)


def find_memory(max_memory: int | None, root: Path = Path("/")) -> Memory | None:
    """Find the limit that holds: the one asked for, or the cgroup's if that is lower.

    Args:
        max_memory: bytes, or None for the cgroup's alone.
        root: where ``proc`` and ``sys`` are.

    Raises:
        ConfigError: a limit is asked for, where nothing tells what is used.
    """
    found = _cgroup(root)
    if max_memory is None or (found is not None and found.limit <= max_memory):
        return found
    own = root / "proc/self/statm"
    if not own.exists():
        raise ConfigError("max_memory", "cannot be held here: there is no /proc/self/statm")
    return Memory(max_memory, own)


def _cgroup(root: Path) -> Memory | None:
    """Find the lowest limit of this process's cgroup and those that it is in."""
    limits: list[Memory] = []
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                top, unified = root / "sys/fs/cgroup", True
            elif "memory" in controllers.split(","):
                top, unified = root / "sys/fs/cgroup/memory", False
            else:
                continue
            here = top / path.lstrip("/")
            # In a container the path may be the host's, and not be there; its own is the top.
            for folder in (here, *here.parents):
                if folder.is_relative_to(top):
                    limits += _limit(folder, unified=unified)
    return min(limits, key=lambda memory: memory.limit, default=None)


def _limit(folder: Path, *, unified: bool) -> list[Memory]:
    """Read one cgroup's limit, if it has one."""
    limit, used = (
        ("memory.max", "memory.current")
        if unified
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    with suppress(OSError, ValueError):
        value = int((folder / limit).read_text("ascii"))  # "max" is no number
        if value < _UNLIMITED:
            # Version 1 counts sockets too, but to a limit of their own.
            return [Memory(value, folder / used, folder / "memory.stat", sockets=unified)]
    return []


def give_back() -> None:
    """Have the C library return what is free to the kernel, where it can.

    It keeps small pieces that were freed amid others, which would count against
    the limit on and on.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
