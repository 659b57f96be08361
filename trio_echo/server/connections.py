"""The open connections of one server: each a task, all of them under limits."""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING, Final

import structlog
import trio

from trio_echo.framing import Framer, encode_prefix
from trio_echo.server.edge import EdgeStream
from trio_echo.server.handler import converse, end_politely
from trio_echo.server.transport import StreamTransport

if TYPE_CHECKING:
    import socket

    from trio_echo.server.config import ServerConfig
    from trio_echo.server.edge import Hub
    from trio_echo.server.listeners import Listener
    from trio_echo.server.metrics import Metrics, Reason
    from trio_echo.server.transport import Transport

__all__ = ["Connection", "Connections"]

_QUIET: Final = 0.5
"""Seconds without a byte after which a drain takes a client to be done."""

_RESERVED: Final = 64
"""Descriptors that are not for connections: listeners, admin, logs, libraries."""

_log = structlog.get_logger()


class Connection:
    """One client, as the limits, the drain and the metrics see it."""

    __slots__ = ("_framer", "_moved", "_since", "ending", "scope", "transport")

    def __init__(self, transport: Transport, framer: Framer) -> None:
        self.transport = transport
        self._framer = framer
        self.scope = trio.CancelScope()
        self.ending: Reason = "cut"
        self._moved = -1
        self._since = 0.0

    @property
    def lines(self) -> int:
        """Lines answered."""
        return self._framer.lines

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
        return self._framer.partial or self.transport.blocked

    def quiet(self, now: float) -> float:
        """Tell for how many seconds no byte was seen to move, either way.

        A look at counters that are there anyway, taken now and then, in place
        of a time stamp per chunk. The first look is the first that can know.
        """
        moved = self.received + self.sent
        if moved != self._moved:
            self._moved = moved
            self._since = now
        return now - self._since

    async def converse(self) -> Reason:
        """Hold the conversation to its end, or until `end`; tell the reason."""
        with self.scope:
            return await converse(self.transport, self._framer)
        if self.ending == "drain":
            # What arrived meanwhile was accepted, and is answered.
            with trio.CancelScope() as scope:
                scope.cancel()
                await self.transport.relay(self._framer.feed, self._framer.chunk_size)
            await end_politely(self.transport)
        return self.ending

    def end(self, reason: Reason) -> None:
        """End the conversation; its task does so and gives `reason`."""
        self.ending = reason
        self.scope.cancel()


class Connections:
    """Starts a task for each connection, knows the open ones, ends the idle ones.

    Args:
        config: of the server.
        metrics: where they are counted.
        nursery: where their tasks run.
        hub: what carries the plain ones; None where there is no epoll.
    """

    def __init__(
        self, config: ServerConfig, metrics: Metrics, nursery: trio.Nursery, hub: Hub | None
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._nursery = nursery
        self._hub = hub
        self._prefix = encode_prefix(config.prefix)
        self._open: set[Connection] = set()
        self._places = config.max_connections or places_by_descriptors()
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def full(self) -> bool:
        """Whether there is no place for one more."""
        return self._places <= 0

    async def wait_for_place(self) -> None:
        """Wait until there is a place for one more."""
        while self.full:
            await self._waiting.park()

    def start(self, sock: socket.socket, listener: Listener) -> None:
        """Serve an accepted socket in a task of its own."""
        self._places -= 1
        # Given no name, trio makes one of the function's, once for each task.
        self._nursery.start_soon(self._serve, sock, listener, name="connection")

    async def _serve(self, sock: socket.socket, listener: Listener) -> None:
        """Own one connection: its transport, its framer, its end and its count."""
        transport: Transport
        if self._hub is not None:
            transport = EdgeStream(self._hub, sock)
        else:
            transport = StreamTransport(
                trio.SocketStream(trio.socket.from_stdlib_socket(sock)), sock.close
            )
        connection = Connection(transport, Framer(self._prefix, self._config.max_line))
        self._metrics.opened(listener.port, listener.tls, connection)
        self._open.add(connection)
        reason: Reason = "cut"
        try:
            reason = await connection.converse()
        except trio.BrokenResourceError:
            reason = "reset"
        except Exception:  # noqa: BLE001 - logged, and the end of this connection only
            reason = "error"
            _log.exception("a connection failed")
        finally:
            transport.close()
            self._open.remove(connection)
            self._metrics.closed(connection, reason)
            self._places += 1
            self._waiting.unpark()

    async def sweep(self) -> None:
        """End idle connections, until cancelled."""
        timeout = self._config.idle_timeout
        while True:
            await trio.sleep(min(timeout / 8, 60))
            now = trio.current_time()
            for connection in self._open:
                if connection.quiet(now) >= timeout:
                    connection.end("idle")

    async def drain(self) -> None:
        """End each connection politely once it is quiet and owes nothing."""
        while self._open:
            now = trio.current_time()
            for connection in self._open:
                if connection.quiet(now) >= _QUIET and not connection.owes:
                    connection.end("drain")
            await trio.sleep(_QUIET / 5)


def places_by_descriptors() -> int:
    """Tell how many connections the limit on open files has places for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - _RESERVED) if soft != resource.RLIM_INFINITY else sys.maxsize
