"""Local ports: whether they are about to run out."""

from __future__ import annotations

from collections import deque
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_echo.prober.wire import Address

__all__ = ["PortWatch"]

_SYSCTL = Path("/proc/sys/net/ipv4")

_HELD = 60.0
"""Seconds that Linux holds the port of a connection it closed first (TIME_WAIT)."""

_HELD_SHORT = 1.0
"""Seconds after which it reuses such a port all the same, where it may."""

_FULL = 0.8
"""The part of the ports in use at which to warn: there is still time to act."""

_MARK = 64
"""Launches between two marks of the time; what is in use is known to that."""


class PortWatch:
    """Counts how many local ports recent connections hold.

    A port is free again for the same destination a minute after its connection
    was closed; faster than range / 60 s, and connecting fails.

    Args:
        address: the destination.
        sources: how many local addresses there are to connect from.
        sysctl: where Linux shows its settings.
    """

    def __init__(self, address: Address, sources: int, sysctl: Path = _SYSCTL) -> None:
        ports = _numbers(sysctl / "ip_local_port_range")
        # Where there is no such file there is nothing to warn about in time.
        self._ports = (ports[1] - ports[0] + 1) * sources if len(ports) == 2 else None  # noqa: PLR2004 - first and last
        reuse = _numbers(sysctl / "tcp_tw_reuse")
        loopback = ip_address(str(address[1][0]).partition("%")[0]).is_loopback
        quick = reuse == [1] or (reuse == [2] and loopback)
        self._held = _HELD_SHORT if quick else _HELD
        self._count = 0
        self._marks: deque[float] = deque()

    def launched(self, now: float) -> list[str]:
        """Count one connection.

        Returns:
            A warning where ports are about to run out, once; otherwise nothing.
        """
        self._count += 1
        if self._ports is None or self._count % _MARK:
            return []
        self._marks.append(now)
        while self._marks[0] < now - self._held:
            self._marks.popleft()
        used = len(self._marks) * _MARK
        if used < self._ports * _FULL:
            return []
        total, self._ports = self._ports, None
        warning = (
            f"{used} of {total} local ports were used within {self._held:g} s, and more will "
            "soon fail: use a lower --rate, or a --source-address more"
        )
        return [warning]


def _numbers(path: Path) -> list[int]:
    """The numbers in a file of /proc/sys; none where it is not there."""
    try:
        return [int(word) for word in path.read_text(encoding="ascii").split()]
    except (OSError, ValueError):
        return []
