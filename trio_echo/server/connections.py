"""The open connections of one server: each has a task, all are under limits."""

from __future__ import annotations

import fcntl
import logging
import resource
import struct
import sys
import termios
from typing import TYPE_CHECKING, Final, TypeAlias

import outcome
import structlog
import trio

from trio_echo.framing import Framer, encode_prefix
from trio_echo.server.handler import QUIET, EndedError, converse, end_politely
from trio_echo.server.log import LoggedFramer, Throttle
from trio_echo.server.tls import HandshakeError
from trio_echo.text import format_address

if TYPE_CHECKING:
    import socket

    from structlog.typing import FilteringBoundLogger

    from trio_echo.server.config import ServerConfig
    from trio_echo.server.listeners import Listener
    from trio_echo.server.metrics import Metrics, Reason
    from trio_echo.server.transport import Carrier, Transport

__all__ = ["Accepted", "Connections"]

_RESERVED: Final = 64
"""Descriptors that are not for connections: listeners, admin, logs, libraries."""

_SPARE_TASKS: Final = 256
"""Tasks that wait for another connection; more end with theirs."""

_WORDS: Final = {"idle": "idle for too long", "line-too-long": "line too long"}

_POLITE: Final = {"drain", "line-too-long"}
"""Ends of the server's own, of which the client is told and that it may read up to.

A drain's deadline may cut that short; the connection does not count as cut then.
"""

Accepted: TypeAlias = "tuple[socket.SocketType, Listener, tuple[str, int]]"
"""A connection as it comes from a backlog: its socket, whose, and from where."""


class Connection:
    """One client, as the limits, the drain and the metrics see it."""

    __slots__ = ("_descriptor", "_ended", "_moved", "_since", "client", "framer", "transport")

    def __init__(
        self, transport: Transport, framer: Framer, client: tuple[str, int], descriptor: int
    ) -> None:
        self.transport = transport
        self.framer = framer
        self.client = client
        self._descriptor = descriptor
        self._ended = False
        self._moved = -1
        self._since = 0.0

    @property
    def lines(self) -> int:
        """Lines answered."""
        return self.framer.lines

    @property
    def received(self) -> int:
        """Bytes received."""
        return self.transport.received

    @property
    def sent(self) -> int:
        """Bytes sent."""
        return self.transport.sent

    @property
    def owes(self) -> bool:
        """Whether the client is amid a line, or has not read an answer."""
        return self.framer.partial or self.transport.blocked

    def quiet(self, now: float) -> float:
        """Tell for how many seconds no byte was seen to move, either way.

        It looks at counters that are there anyway, now and then, in place of a
        time stamp for every chunk. The first look starts the clock.
        """
        moved = self.received + self.sent
        if self.transport.blocked:
            # The kernel asks for more only when a third of its buffer is free,
            # megabytes. What a slow client reads before that moves, too.
            moved -= _queued(self._descriptor)
        if moved != self._moved:
            self._moved = moved
            self._since = now
        return now - self._since

    def end(self, reason: Reason) -> None:
        """End the conversation for a reason of the server's; the first one counts."""
        if not self._ended:
            self._ended = self.transport.interrupt(EndedError(reason))


class Connections:
    """Serves each connection in a task, knows the open ones, ends the idle ones.

    Args:
        config: of the server.
        metrics: where they are counted.
        nursery: where their tasks run.
        carrier: what makes a transport of a socket.
    """

    def __init__(
        self, config: ServerConfig, metrics: Metrics, nursery: trio.Nursery, carrier: Carrier
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._nursery = nursery
        self._carrier = carrier
        self._prefix = encode_prefix(config.prefix)
        self._open: set[Connection] = set()
        self._limit = config.max_connections or _places_by_descriptors()
        self._places = self._limit
        self._waiting = trio.lowlevel.ParkingLot()
        self._spare: list[trio.lowlevel.Task] = []
        self._draining = False
        self._log: FilteringBoundLogger = structlog.get_logger().bind()
        # Asked once: even a log call that is filtered out costs a microsecond.
        self._debug = self._log.is_enabled_for(logging.DEBUG)
        self._throttle = Throttle(self._log)

    @property
    def full(self) -> bool:
        """Whether there is no place for one more."""
        return self._places <= 0

    async def wait_for_place(self) -> None:
        """Wait until there is a place for one more."""
        while self.full:
            self._throttle.warning(
                "no place for another connection, clients wait in the backlog",
                max_connections=self._limit,
            )
            await self._waiting.park()

    def start(self, accepted: Accepted) -> None:
        """Serve an accepted connection in a task of its own."""
        sock, listener, client = accepted
        descriptor = sock.fileno()
        transport = self._carrier.carry(sock, tls=listener.tls)
        framer = self._framer(client)
        connection = Connection(transport, framer, client, descriptor)
        self._places -= 1
        self._metrics.opened(listener.port, listener.tls, connection)
        self._open.add(connection)
        if self._debug:
            self._log.debug("connection opened", peer=format_address(*client[:2]))
        transport.begin(framer.feed, framer.chunk_size)
        if self._spare:
            trio.lowlevel.reschedule(self._spare.pop(), outcome.Value(connection))
        else:
            # Given no name, trio makes one of the function's, for each task anew.
            self._nursery.start_soon(self._work, connection, name="connection")

    async def _work(self, connection: Connection | None) -> None:
        """Serve one connection, and then another that comes before this task ends.

        A task that ends and one that starts cost 11 us more than one that goes
        on, of 80 us for a client that connects, sends a line and leaves.
        """
        while connection is not None:
            await self._serve(connection)
            if self._draining or len(self._spare) >= _SPARE_TASKS:
                break
            self._spare.append(trio.lowlevel.current_task())
            connection = await trio.lowlevel.wait_task_rescheduled(self._abort_spare)

    def _abort_spare(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        # Whatever cancels one spare task cancels the nursery, and so all of them.
        self._spare.clear()
        return trio.lowlevel.Abort.SUCCEEDED

    async def _serve(self, connection: Connection) -> None:
        """Own one connection to its end, its close and its count."""
        transport, framer, client = connection.transport, connection.framer, connection.client
        reason: Reason = "cut"
        try:
            reason = await converse(transport, framer)
            if reason in _WORDS:
                self._warn(_WORDS[reason], client)
            if reason in _POLITE:
                await end_politely(transport)
        except HandshakeError as error:
            reason = "tls"
            self._warn("no TLS with this client", client, error=str(error))
            await end_politely(transport)
        except trio.BrokenResourceError:
            reason = "reset"
        except Exception:  # noqa: BLE001 - logged; it ends this connection only
            reason = "error"
            self._log.exception("a connection failed", peer=format_address(*client[:2]))
        finally:
            transport.close()
            self._open.remove(connection)
            self._metrics.closed(connection, reason)
            self._places += 1
            if self._waiting:
                # All, as at the listener of the first there may be no client.
                self._waiting.unpark_all()
            if self._debug:
                self._log.debug(
                    "connection closed",
                    peer=format_address(*client[:2]),
                    reason=reason,
                    lines=framer.lines,
                )

    def _framer(self, client: tuple[str, int]) -> Framer:
        """Make the framer of a new connection."""
        if self._config.log_lines:
            log = self._log.bind(peer=format_address(*client[:2]))
            return LoggedFramer(log, self._prefix, self._config.max_line)
        return Framer(self._prefix, self._config.max_line)

    def _warn(self, event: str, client: tuple[str, int], **fields: object) -> None:
        self._throttle.warning(event, peer=format_address(*client[:2]), **fields)

    async def sweep(self) -> None:
        """End idle connections, until cancelled."""
        timeout = self._config.idle_timeout
        while True:
            await trio.sleep(min(max(timeout / 8, 0.01), 10))
            self._throttle.settle()
            now = trio.current_time()
            for connection in self._open:
                if connection.quiet(now) >= timeout:
                    connection.end("idle")

    async def drain(self) -> None:
        """End each connection politely once it is quiet and owes nothing, until cancelled."""
        self._draining = True
        for task in self._spare:
            trio.lowlevel.reschedule(task, outcome.Value(None))
        self._spare.clear()
        while True:
            now = trio.current_time()
            for connection in self._open:
                if connection.quiet(now) >= QUIET and not connection.owes:
                    connection.end("drain")
            await trio.sleep(QUIET / 5)

    def settle(self) -> None:
        """Say what is still unsaid at the end: warnings held back, connections cut."""
        self._throttle.settle(final=True)
        if cut := self._metrics.ended["cut"]:
            self._log.warning("connections cut", count=cut)


def _queued(descriptor: int) -> int:
    """Tell how many bytes the kernel keeps until the client has taken them."""
    (queued,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
    return int(queued)


def _places_by_descriptors() -> int:
    """Tell how many connections the limit on open files has places for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - _RESERVED)
