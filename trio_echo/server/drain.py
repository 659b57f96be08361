"""How a server ends without losing a client: theory first, then what does it.

**What a client may count on.** A client that is connected in its own view when
the server's port begins to refuse, and has written its line, reads the answer;
over round trips of half a second too, and with a packet lost on the way. What is
not answered is counted, logged, and makes the server's exit code 1.

**The port.** Closing a listener resets whoever waits in its queue, and whoever
is amid the handshake: half a round trip before the server knows of a connection,
its client takes it for made, and writes. So a listener that is to end first
*refuses*, then *empties*, then is closed:

    state     a SYN gets      the handshake's last step   leaves it when
    --------  --------------  --------------------------  ---------------------------------
    open      a handshake     a connection in the queue   the drain begins
    refusing  a reset         a connection in the queue   no handshake is under way, and then
                                                          nothing in the queue; or deadline
    closed    a reset         a reset                     -

To refuse, the listener is bound to a network interface that does not exist
(`refuse_new`). The kernel then finds no listener for a SYN, and answers as it
does at a closed port: a client behind a load balancer that tries elsewhere does
so at once. Handshakes under way and connections in the queue are of the
interface they began on, and are not touched.

At its limit of connections the server takes the queue in all the same, and keeps
it in a line of its own until there are places. So its port is free for the next
server, however long the present clients take.

**The connections.** TCP cannot tell whether a client has more to say. The server
takes it to be done when no byte has moved for a while, in any layer, and ends
its side; then it reads on, until the client has ended too. What it reads there
was written before the end had arrived, and is lost: that is how it is counted.

    state    what the server sees                          what it does
    -------  --------------------------------------------  ----------------------------
    talking  a byte moved less than `patience` ago, or      serve
             since the port refuses; or it is amid a line,
             a handshake, a record, a header, or an answer
    talking  none of these, and nothing is there to read    end the server's side: ended
    talking  the client ends                                answer the rest, and close when
                                                            that has left: eof
    ended    bytes come                                     read them away: it is a cut
    ended    the client ends                                close: drain, or cut
    ended    two seconds have passed                        close: drain, or cut
    ended    the deadline, and the client's kernel has      close: drain, or cut
             acknowledged the end
    any      the deadline                                   close: cut

What has not left when the server closes a connection, the kernel would go on to
send; but not once the last process of a container has ended, and its network with
it. So the server waits for that.

`patience` is what a client may take to write, and then what TCP takes to send a
lost packet again over this connection (`TCP_INFO` knows).

The policy is the functions below that do no I/O. The tests run them against a
simulated kernel and every order of events in it, and the server against the real
one.
"""

from __future__ import annotations

import fcntl
import math
import re
import socket
import struct
import sys
import termios
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from trio_echo.log import Log

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_echo.server.accept import Acceptor
    from trio_echo.server.connections import Connections
    from trio_echo.server.metrics import Metrics

__all__ = [
    "QUIET",
    "Drain",
    "Sight",
    "handshakes",
    "may_close",
    "may_end",
    "refuse_new",
    "retransmission",
    "unacknowledged",
    "unsent",
]

QUIET: Final = 0.5
"""Seconds that a client may take to write its line, or the next one."""

_LOOK: Final = 0.05
"""Seconds between two looks at the listeners, and at the connections."""

_SLOWEST: Final = 3.0
"""Seconds that a retransmission is waited for at most: the first one, on any path."""

_SETTLED: Final = 0.05
"""Seconds after which a SYN that came as the port began to refuse is a handshake to be seen."""

_UNSEEN: Final = 1.0
"""Seconds that handshakes get where the kernel does not show them, or does not refuse."""

_LOOKS: Final = 10
"""Looks at the very end for an instant in which no handshake ends: two or three do, unless
the kernel does not refuse new ones. A client may be counted twice then, but never missed."""

_SO_BINDTOIFINDEX: Final = 62
_NO_INTERFACE: Final = 2**31 - 1
"""Socket option of Linux that Python does not name, and an index that no interface has."""

_SIOCOUTQNSD: Final = 0x894B
"""Request of Linux that Python does not name."""

_RETRANSMISSION: Final = 0.2
"""Seconds after which TCP sends again on a fast path, where the kernel does not tell."""

_TCP_INFO_RTO: Final = 8
"""Where in Linux's ``struct tcp_info`` that time stands, in microseconds."""


_log = Log()


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at a connection sees.

    Attributes:
        quiet: seconds since a byte moved, or since the port refuses if that is less.
        owed: whether the client is amid a line or a PROXY header, or has not taken
            all of an answer.
        pending: whether something has arrived, or begun to, that was not served: bytes
            in the kernel, a handshake of TLS, a part of a record.
        retransmission: seconds after which TCP sends again what was not acknowledged.
    """

    quiet: float
    owed: bool
    pending: bool
    retransmission: float


def may_end(sight: Sight) -> bool:
    """Tell whether the client is done, as far as TCP can tell."""
    patience = QUIET + min(sight.retransmission, _SLOWEST)
    return sight.quiet >= patience and not sight.owed and not sight.pending


def may_close(seconds: float, *, handshakes: int | None, refusing: bool) -> bool:
    """Tell whether a listener whose queue is empty can be closed without a reset to anybody.

    Args:
        seconds: since it is to refuse.
        handshakes: how many were under way before the queue was emptied, as one
            that ends adds to it; None if the kernel does not tell.
        refusing: whether it does refuse; otherwise the number may never be zero.
    """
    if handshakes == 0 and seconds >= _SETTLED:
        return True
    return (handshakes is None or not refusing) and seconds >= _UNSEEN


def refuse_new(listener: socket.socket) -> bool:
    """Have the kernel refuse new connections, and keep those that are there.

    The listener is bound to a network interface that does not exist. A socket
    that was not bound to one may be so without any privilege (Linux 5.7).

    Returns:
        Whether it refuses now. It does not on other systems, on an older kernel
        without CAP_NET_RAW, or at a link-local address, which is bound to an
        interface already. Then the instant between the last accept and the
        closing remains.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
            return True
    return False


def handshakes(ports: Iterable[int], folder: Path = Path("/proc/net")) -> Counter[int] | None:
    """Count the handshakes that wait for the client's last step, by port.

    It takes some milliseconds for ten thousand sockets in the network
    namespace, most of which the kernel needs, so call it in a thread.

    Returns:
        None where the kernel does not tell.
    """
    some = b"|".join(b"%04X" % port for port in ports)
    # A line is: number, local address, remote address, state (3: SYN received).
    under_way = re.compile(
        rb"^ *\d+: [0-9A-F]+:(%s) [0-9A-F]+:[0-9A-F]{4} 03 " % some, re.MULTILINE
    )
    try:
        tables = [(folder / "tcp").read_bytes()]
    except OSError:
        return None
    with suppress(OSError):  # there is no IPv6
        tables.append((folder / "tcp6").read_bytes())
    return Counter(int(port, 16) for table in tables for port in under_way.findall(table))


def unacknowledged(descriptor: int) -> int:
    """Tell how many bytes the client's kernel has not taken; 0 where ours does not tell.

    The end of file counts as one. A server goes on without the answer.
    """
    try:
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])


def unsent(descriptor: int) -> int:
    """Tell how many bytes have not left this machine yet; 0 where the kernel does not tell."""
    if sys.platform == "linux":
        with suppress(OSError):
            answer = fcntl.ioctl(descriptor, _SIOCOUTQNSD, bytes(4))
            return int(struct.unpack("i", answer)[0])
    return 0


def retransmission(descriptor: int) -> float:
    """Tell after how many seconds TCP sends again here what was not acknowledged."""
    if sys.platform == "linux":
        with suppress(OSError):
            # Any family will do: the socket object only takes the descriptor along.
            sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
            try:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_RTO + 4)
            finally:
                sock.detach()
            return float(struct.unpack_from("I", info, _TCP_INFO_RTO)[0]) / 1e6
    return _RETRANSMISSION


class Drain:
    """Ends one server, by the tables above.

    Args:
        acceptors: of its listeners.
        connections: all of them.
        metrics: where those are counted who are refused at the end.
    """

    def __init__(
        self, acceptors: Sequence[Acceptor], connections: Connections, metrics: Metrics
    ) -> None:
        self._acceptors = acceptors
        self._connections = connections
        self._metrics = metrics
        self._began = math.inf
        self._refusing = False

    def begin(self) -> None:
        """Refuse new connections."""
        self._began = trio.current_time()
        refusing = [refuse_new(each.listener.sock) for each in self._acceptors]
        self._refusing = all(refusing)

    async def empty_listeners(self) -> None:
        """Accept all that were connected before, as they know it, and close the listeners."""
        ports = {each.listener.port for each in self._acceptors}
        while True:
            under_way = await trio.to_thread.run_sync(handshakes, ports)
            for acceptor in self._acceptors:
                await acceptor.take_all()
            if may_close(
                trio.current_time() - self._began,
                handshakes=None if under_way is None else under_way.total(),
                refusing=self._refusing,
            ):
                break
            await trio.sleep(_LOOK)
        for acceptor in self._acceptors:
            acceptor.close()

    async def end_connections(self) -> None:
        """End each connection that is done, until cancelled."""
        self._connections.retire_spare_tasks()
        while True:
            now = trio.current_time()
            since = now - self._began
            if since >= QUIET:
                for connection in self._connections:
                    if connection.done(now, since):
                        connection.end("drain")
            await trio.sleep(_LOOK)

    def settle(self) -> None:
        """Refuse all who are still not served, close the listeners, and say how many those were.

        A handshake under way is counted among them: its client may take the
        connection for made.
        """
        still = [each for each in self._acceptors if each.listener.sock.fileno() >= 0]
        ports = {(each.listener.port, each.listener.tls) for each in still}
        for acceptor in still:
            refuse_new(acceptor.listener.sock)
        under_way: Counter[int] = Counter()
        for _ in range(_LOOKS if still else 0):
            under_way = handshakes({port for port, _ in ports}) or Counter()
            if not sum([self._refuse_waiting(each) for each in still]):
                break  # else some that were seen under way may be among those
        for port, tls in ports:
            self._metrics.refused(port, tls, under_way[port])
        for acceptor in still:
            acceptor.close()
        for listener in self._connections.refuse_line():
            self._metrics.refused(listener.port, listener.tls)
        if refused := self._metrics.ended["refused"]:
            _log.warning("connections refused", count=refused)

    def _refuse_waiting(self, acceptor: Acceptor) -> int:
        """Reset and count what is in one backlog; tell how many those were."""
        count = acceptor.refuse_waiting()
        self._metrics.refused(acceptor.listener.port, acceptor.listener.tls, count)
        return count
