"""What the server counts. A scrape is exact and the path of a line pays nothing.

Each connection counts on plain attributes of its own. They are added to the
totals when it ends; until then a reader of the totals sums the open ones too.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

__all__ = ["REASONS", "Counted", "Metrics", "Reason"]

Reason = Literal[
    "eof",
    "idle",
    "reset",
    "line-too-long",
    "memory",
    "drain",
    "cut",
    "refused",
    "proxy",
    "tls",
    "error",
]
"""Why a connection ended.

* ``eof``: the client was done, and so were its answers;
* ``idle``: no byte moved, either way, for the idle timeout;
* ``reset``: the client broke the connection;
* ``line-too-long``: the client was told so;
* ``memory``: it held the most when memory ran short;
* ``drain``: quiet while the server drained, so it was ended politely;
* ``cut``: still busy at the end of the drain, or the server was cancelled; or it
  wrote on after a drain had ended it, before it knew;
* ``refused``: connected, as far as the client could know, and not served when the
  drain ended: it was in the backlog, or amid the handshake;
* ``proxy``: it began with no PROXY header, where each has to;
* ``tls``: the client failed the TLS handshake;
* ``error``: a fault of the server, which its log tells.
"""

REASONS: tuple[Reason, ...] = get_args(Reason)
"""Every `Reason`."""


class Counted(Protocol):
    """A connection, as far as it is counted. The numbers only ever grow."""

    @property
    def lines(self) -> int:
        """Lines answered."""

    @property
    def received(self) -> int:
        """Bytes received, a PROXY header among them; above TLS, where there is any."""

    @property
    def sent(self) -> int:
        """Bytes sent to the client; above TLS, where there is any."""


class Metrics:
    """The counters of one server, from its start.

    Attributes:
        accepted: connections accepted so far, by port and whether it is TLS.
        ended: connections that ended so far, by reason; every reason is there.
    """

    __slots__ = ("_lines", "_open", "_received", "_sent", "accepted", "ended")

    def __init__(self) -> None:
        self.accepted: dict[tuple[int, bool], int] = {}
        self.ended: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._open: set[Counted] = set()
        self._lines = 0
        self._received = 0
        self._sent = 0

    def listening(self, port: int, tls: bool) -> None:
        """Have a port counted from zero, before its first connection.

        A counter that appears with its first increment hides that increment
        from a rate over time.
        """
        self.accepted.setdefault((port, tls), 0)

    def opened(self, port: int, tls: bool, connection: Counted) -> None:
        """Count a connection from now on.

        Args:
            port: the port it came in on, which is `listening`.
            tls: whether that port speaks TLS.
            connection: hashed by identity; read at every look at the totals.
        """
        self.accepted[port, tls] += 1
        self._open.add(connection)

    def closed(self, connection: Counted, reason: Reason) -> None:
        """Count the end of an `opened` connection, whose numbers are final now."""
        self._open.remove(connection)
        self.ended[reason] += 1
        self._lines += connection.lines
        self._received += connection.received
        self._sent += connection.sent

    def refused(self, port: int, tls: bool, count: int = 1) -> None:
        """Count clients that were accepted by the kernel alone, and reset."""
        self.accepted[port, tls] += count
        self.ended["refused"] += count

    @property
    def connections(self) -> int:
        """Connections accepted so far, on every port."""
        return sum(self.accepted.values())

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._open)

    @property
    def lines(self) -> int:
        """Lines answered so far."""
        return self._lines + sum(connection.lines for connection in self._open)

    @property
    def received_bytes(self) -> int:
        """Bytes received so far."""
        return self._received + sum(connection.received for connection in self._open)

    @property
    def sent_bytes(self) -> int:
        """Bytes sent so far."""
        return self._sent + sum(connection.sent for connection in self._open)
