"""The open connections of one server: each has a task, all are under limits."""

from __future__ import annotations

import resource
import sys
from collections import deque
from operator import itemgetter
from typing import TYPE_CHECKING, Final, TypeAlias

import outcome
import trio

from trio_echo.framing import Framer, encode_prefix
from trio_echo.log import DEBUG, Log
from trio_echo.server.accept import reset
from trio_echo.server.connection import (
    Connection,
    EndedError,
    ProxyError,
    converse,
    end_politely,
    receive_header,
)
from trio_echo.server.listeners import peer
from trio_echo.server.log import LoggedFramer, Throttle
from trio_echo.server.memory import give_back, pause
from trio_echo.server.tls import HandshakeError

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Iterator

    from trio_echo.server.config import ServerConfig
    from trio_echo.server.listeners import Listener
    from trio_echo.server.memory import Memory
    from trio_echo.server.metrics import Metrics, Reason
    from trio_echo.server.stream import Streams

__all__ = ["Connections"]

_RESERVED: Final = 64
"""Descriptors that are not for connections: listeners, admin, logs, libraries."""

_SPARE_TASKS: Final = 256
"""Tasks that wait for another connection; more end with theirs."""

_WORTHWHILE: Final = 16 * 1024
"""Bytes that a connection must hold to be ended for them, or have received to be
worth having the allocator tidied after it."""

_WORDS: Final = {
    "idle": "idle for too long",
    "line-too-long": "line too long",
    "memory": "memory is short, and this client holds much of it",
}

_POLITE: Final = {"drain", "line-too-long"}
"""Ends that the server chose. The client is told, and gets time to read everything sent.

A drain's deadline may cut that short; the connection does not count as cut then.
"""

_Accepted: TypeAlias = "tuple[socket.SocketType, Listener, tuple[str, int]]"
"""What came from a backlog: a connection, of which listener, and from where."""

_Job: TypeAlias = "tuple[Connection, bool]"
"""A connection to be served, and whether it speaks TLS."""


class Connections:
    """Serves each connection in a task, knows the open ones, ends the idle ones.

    Args:
        config: of the server.
        metrics: where they are counted.
        nursery: where their tasks run.
        streams: makes theirs.
        memory: the limit that all of them are under, together; None for none.

    Attributes:
        limit: how many are served at once.
    """

    def __init__(
        self,
        config: ServerConfig,
        metrics: Metrics,
        nursery: trio.Nursery,
        streams: Streams,
        memory: Memory | None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._nursery = nursery
        self._streams = streams
        self._prefix = encode_prefix(config.prefix)
        self._greeting = f"{config.prefix}\n".encode() if config.greeting else b""
        self._proxied = config.proxy_protocol
        self._begins = not (config.greeting or config.proxy_protocol)  # what comes is lines
        self._open: set[Connection] = set()
        self.limit = config.max_connections or _places(memory)
        self._places = self.limit
        self._waiting = trio.lowlevel.ParkingLot()
        self._line: deque[_Accepted] = deque()
        self._spare: list[trio.lowlevel.Task] = []
        self._draining = False
        self._loose = False
        self._log = Log()
        # Asked once: even a log call that is filtered out costs a microsecond.
        self._debug = self._log.is_enabled_for(DEBUG)
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
                max_connections=self.limit,
            )
            await self._waiting.park()

    def start(self, sock: socket.SocketType, listener: Listener, client: tuple[str, int]) -> None:
        """Serve an accepted connection in a task of its own, as soon as there is a place."""
        if self._places <= 0:  # only a drain accepts beyond the limit
            self._line.append((sock, listener, client))
            return
        descriptor = sock.fileno()
        stream = self._streams.carry(sock)
        if listener.tls and not self._proxied:
            stream = self._streams.secure(stream)
        framer = self._framer(client)
        connection = Connection(stream, framer, client, descriptor)
        self._places -= 1
        self._metrics.opened(listener.port, listener.tls, connection)
        self._open.add(connection)
        if self._debug and not self._proxied:
            self._log.debug("connection opened", peer=peer(client))
        if self._begins:
            stream.begin(framer.feed, framer.chunk_size)
        job = connection, listener.tls
        if self._spare:
            trio.lowlevel.reschedule(self._spare.pop(), outcome.Value(job))
        else:
            # Given no name, trio makes one of the function's, for each task anew.
            self._nursery.start_soon(self._work, job, name="connection")

    async def _work(self, job: _Job | None) -> None:
        """Serve one connection, and then another that comes before this task ends.

        A task that ends and one that starts cost 11 us more than one that goes
        on, of 80 us for a client that connects, sends a line and leaves.
        """
        while job is not None:
            await self._serve(*job)
            # A parked task must not keep what is over: there may be a long line in it.
            del job
            if self._draining or len(self._spare) >= _SPARE_TASKS:
                break
            self._spare.append(trio.lowlevel.current_task())
            job = await trio.lowlevel.wait_task_rescheduled(self._abort_spare)

    def _abort_spare(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        # Whatever cancels one spare task cancels the nursery, and so all of them.
        self._spare.clear()
        return trio.lowlevel.Abort.SUCCEEDED

    async def _serve(self, connection: Connection, tls: bool) -> None:
        """Own one connection to its end, its close and its count."""
        reason: Reason = "cut"
        ended = False
        try:
            reason = await self._conversation(connection, tls)
            if reason in _WORDS:
                self._throttle.warning(_WORDS[reason], peer=peer(connection.client))
            if reason in _POLITE:
                connection.told()
                await end_politely(connection.stream)
                ended = True
            if reason == "eof" and self._draining:
                reason = "cut"  # unless all has left by the deadline
                await connection.leave()
                reason = "eof"
        except HandshakeError as error:
            reason = "tls"
            self._throttle.warning(
                "no TLS with this client", peer=peer(connection.client), error=str(error)
            )
            await end_politely(connection.stream)
        except trio.BrokenResourceError:
            reason = "reset"
        except Exception:  # noqa: BLE001 - logged; it ends this connection only
            reason = "error"
            self._log.exception("a connection failed", peer=peer(connection.client))
        finally:
            cancelled = reason == "cut"
            # Asked of a drain only: for the others it would be a system call for nothing.
            if reason == "drain" and (connection.unanswered or not (ended or connection.taken)):
                reason = "cut"
            connection.stream.close()
            self._open.remove(connection)
            self._metrics.closed(connection, reason)
            self._free_place(cancelled=cancelled)
            if connection.received > _WORTHWHILE:
                self._loose = True
            if self._debug:
                self._log.debug(
                    "connection closed",
                    peer=peer(connection.client),
                    reason=reason,
                    lines=connection.lines,
                )

    def _conversation(self, connection: Connection, tls: bool) -> Coroutine[object, object, Reason]:
        """Make what a connection's task awaits first."""
        if self._proxied:
            return self._converse_behind_proxy(connection, tls)
        return converse(connection.stream, connection.framer, tls=tls, greeting=self._greeting)

    async def _converse_behind_proxy(self, connection: Connection, tls: bool) -> Reason:
        """Learn from a proxy who its client is, and converse with that."""
        proxy = connection.client
        try:
            received = await receive_header(connection)
        except EndedError as ended:
            return ended.reason
        except ProxyError as error:
            self._throttle.warning("no PROXY header", peer=peer(proxy), error=str(error))
            return "proxy"
        finally:
            if self._debug:
                client = peer(connection.client)
                self._log.debug("connection opened", peer=client, proxy=peer(proxy))
        if received is None:
            return "eof"
        connection.framer = self._framer(connection.client)
        if tls:
            connection.stream, received = self._streams.secure(connection.stream, received), b""
        return await converse(
            connection.stream,
            connection.framer,
            tls=tls,
            greeting=self._greeting,
            received=received,
        )

    def _free_place(self, *, cancelled: bool) -> None:
        """Give the place of a connection that is over to who waits for one."""
        self._places += 1
        if self._line and not cancelled:
            self.start(*self._line.popleft())
        if self._waiting:
            # All, as at the listener of the first there may be no client.
            self._waiting.unpark_all()

    def _framer(self, client: tuple[str, int]) -> Framer:
        """Make the framer of a new connection."""
        if self._config.log_lines:
            log = Log(peer=peer(client))
            return LoggedFramer(log, self._prefix, self._config.max_line)
        return Framer(self._prefix, self._config.max_line)

    async def sweep(self) -> None:
        """End idle connections, until cancelled."""
        timeout = self._config.idle_timeout
        while True:
            await trio.sleep(min(max(timeout / 8, 0.01), 10))
            self._throttle.settle()
            self._tidy()
            now = trio.current_time()
            for connection in self._open:
                if connection.quiet(now) >= timeout:
                    connection.end("idle")

    async def stay_within(self, memory: Memory) -> None:
        """End the connections that hold the most before memory is used up, until cancelled."""
        while True:
            spare = memory.spare()
            if spare < 0:
                self._free(-spare)
            self._tidy()
            await trio.sleep(pause(spare))

    def _tidy(self) -> None:
        """Give back what connections held that have ended, if that was much."""
        if self._loose:
            self._loose = False
            give_back()

    def _free(self, wanted: int) -> None:
        """End the connections that hold the most, until that many bytes will be free."""
        holders = [(connection.held, connection) for connection in self._open]
        for held, connection in sorted(holders, key=itemgetter(0), reverse=True):
            if wanted <= 0 or held < _WORTHWHILE:
                break
            connection.end("memory")
            wanted -= held

    def retire_spare_tasks(self) -> None:
        """Let them end, and keep no more."""
        self._draining = True
        for task in self._spare:
            trio.lowlevel.reschedule(task, outcome.Value(None))
        self._spare.clear()

    def refuse_line(self) -> Iterator[Listener]:
        """Reset all that were accepted and found no place; tell where each had come in."""
        while self._line:
            sock, listener, _ = self._line.popleft()
            reset(sock)
            yield listener

    def __iter__(self) -> Iterator[Connection]:
        """Go through the open ones."""
        return iter(self._open)

    def settle(self) -> None:
        """Say what is still unsaid at the end: warnings held back, connections cut."""
        self._throttle.settle(final=True)
        if cut := self._metrics.ended["cut"]:
            self._log.warning("connections cut", count=cut)


def _places(memory: Memory | None) -> int:
    """Tell how many connections the limits on open files and memory have places for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_files = sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - _RESERVED)
    return by_files if memory is None else min(by_files, memory.places())
