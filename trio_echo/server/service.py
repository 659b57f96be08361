"""The server as a whole: its nurseries, from the first listener to the last answer."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import structlog
import trio

from trio_echo.server.accept import Acceptor
from trio_echo.server.connections import Connections
from trio_echo.server.edge import Hub
from trio_echo.server.listeners import open_listeners
from trio_echo.server.metrics import Metrics
from trio_echo.server.refuse import refuse_new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_echo.server.config import ServerConfig
    from trio_echo.server.listeners import Listener

__all__ = ["Server", "serve"]

_log = structlog.get_logger()


class Server:
    """A server that `serve` runs.

    Attributes:
        ports: the real ports, in the order of the configuration, plain ones first.
        metrics: what it has counted so far.
        ready: whether it accepts new clients.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.ports = tuple(dict.fromkeys(listener.port for listener in listeners))
        self.metrics = Metrics()
        self.ready = True
        self._draining = trio.Event()
        self._whole = trio.CancelScope()
        for listener in listeners:
            self.metrics.listening(listener.port, listener.tls)

    @property
    def cut_connections(self) -> int:
        """How many connections were cut, clients amid a conversation."""
        return self.metrics.ended["cut"]

    def drain(self) -> None:
        """Accept no new clients, serve the present ones to their end, then stop.

        At the configuration's drain timeout the rest is cut.
        """
        self.ready = False
        self._draining.set()

    def cut(self) -> None:
        """Stop at once, whoever is still being served."""
        self.drain()
        self._whole.cancel()


async def serve(
    config: ServerConfig, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until `Server.drain` and the end that follows it, or until cancelled.

    Start it in a nursery, and it hands out the running `Server`::

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve, ServerConfig(ports=[0], prefix="one"))
            ...
            server.drain()

    A cancellation cuts every connection.

    Raises:
        ConfigError: a port cannot be listened on, or another setting cannot work here.
    """
    listeners = open_listeners(config)
    server = Server(listeners)
    hub = Hub() if hasattr(select, "epoll") else None
    try:
        async with trio.open_nursery() as services:
            if hub is not None:
                services.start_soon(hub.run)
            with server._whole:  # noqa: SLF001 - handle and service are one mechanism
                async with trio.open_nursery() as handlers:
                    connections = Connections(config, server.metrics, handlers, hub)
                    services.start_soon(connections.sweep)
                    acceptors = [Acceptor(listener, connections) for listener in listeners]
                    async with trio.open_nursery() as accepting:
                        for acceptor in acceptors:
                            accepting.start_soon(acceptor.run)
                        for listener in listeners:
                            _log.info(f"listening on {listener}, prefix: {config.prefix}")
                        task_status.started(server)
                        await server._draining.wait()  # noqa: SLF001 - the same
                        for listener in listeners:
                            refuse_new(listener.sock)
                        accepting.cancel_scope.cancel()
                    handlers.cancel_scope.deadline = trio.current_time() + config.drain_timeout
                    async with trio.open_nursery() as finishing:
                        for acceptor in acceptors:
                            finishing.start_soon(acceptor.finish)
                    await connections.drain()
            services.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.sock.close()
