"""The server as a whole: its nurseries, from the first listener to the last answer."""

from __future__ import annotations

import select
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

import trio

from trio_echo.log import Log
from trio_echo.server.accept import Acceptor
from trio_echo.server.connections import Connections
from trio_echo.server.drain import Drain
from trio_echo.server.epoll import open_hub
from trio_echo.server.listeners import open_listeners
from trio_echo.server.memory import find_memory
from trio_echo.server.metrics import Metrics
from trio_echo.server.stream import Streams
from trio_echo.server.tls import server_context

if TYPE_CHECKING:
    import ssl

    from trio_echo.server.config import ServerConfig
    from trio_echo.server.listeners import Listener
    from trio_echo.server.memory import Memory

__all__ = ["Server", "serve"]

_log = Log()


class Server:
    """A running server, as `serve` hands it out.

    Attributes:
        ports: the real ports, plain ones and then those of TLS, in the order of
            the configuration.
        admin_port: the real admin port; None if there is none.
        metrics: what it has counted so far.
        ready: whether it takes new clients.
    """

    def __init__(
        self, config: ServerConfig, listeners: list[Listener], admin_listeners: list[Listener]
    ) -> None:
        self._config = config
        self._listeners = listeners
        self._admin_listeners = admin_listeners
        self.ports = tuple(dict.fromkeys(listener.port for listener in listeners))
        self.admin_port = admin_listeners[0].port if admin_listeners else None
        self.metrics = Metrics()
        self.ready = True
        self._draining = trio.Event()
        self._serving = trio.CancelScope()
        for listener in listeners:
            self.metrics.listening(listener.port, listener.tls)

    @property
    def dropped_connections(self) -> int:
        """How many clients were cut or refused who were not done, or may not have been."""
        return self.metrics.ended["cut"] + self.metrics.ended["refused"]

    def drain(self) -> None:
        """Take no new clients, serve the present ones to their end, then stop.

        At the drain timeout of the configuration, the rest is cut.
        """
        self.ready = False
        self._draining.set()

    def cut(self) -> None:
        """Stop at once, whoever is still being served."""
        self.drain()
        self._serving.cancel()

    async def run(
        self,
        context: ssl.SSLContext | None,
        memory: Memory | None,
        *,
        task_status: trio.TaskStatus[Server],
    ) -> None:
        """Serve until `drain` and the end that follows it, or until cancelled.

        From the outside in: the hub, which carries every connection; services,
        which live as long as any connection does; handlers, a task for each
        connection; and accepting, which ends alone while the handlers finish.
        """
        hub_or_none = open_hub() if hasattr(select, "epoll") else nullcontext()
        async with hub_or_none as hub, trio.open_nursery() as services:
            if self._admin_listeners:
                services.start_soon(self._serve_admin)
            with self._serving:
                async with trio.open_nursery() as handlers:
                    streams = Streams(hub, context)
                    connections = Connections(self._config, self.metrics, handlers, streams, memory)
                    services.start_soon(connections.sweep)
                    if memory is not None:
                        services.start_soon(connections.stay_within, memory)
                    acceptors = [Acceptor(each, connections) for each in self._listeners]
                    drain = Drain(acceptors, connections, self.metrics)
                    async with trio.open_nursery() as accepting:
                        for acceptor in acceptors:
                            accepting.start_soon(acceptor.run)
                        self._announce(connections.limit, memory)
                        task_status.started(self)
                        await self._draining.wait()
                        _log.info("draining", connections=self.metrics.open)
                        drain.begin()
                        accepting.cancel_scope.cancel()
                    handlers.cancel_scope.deadline = (
                        trio.current_time() + self._config.drain_timeout
                    )
                    handlers.start_soon(drain.empty_listeners)
                    services.start_soon(drain.end_connections)
            drain.settle()
            connections.settle()
            services.cancel_scope.cancel()

    def _announce(self, connections: int, memory: Memory | None) -> None:
        """Say where the server listens, in words that people and scripts wait for."""
        for listener in self._listeners:
            tls = {"tls": True} if listener.tls else {}
            _log.info("listening", address=str(listener), prefix=self._config.prefix, **tls)
        for listener in self._admin_listeners:
            _log.info("admin", address=str(listener))
        bounds = {} if memory is None else {"max_memory": memory.limit}
        _log.info("limits", max_connections=connections, **bounds)

    async def _serve_admin(self) -> None:
        """Serve the admin pages, to the end of the drain."""
        # Here, since h11 and prometheus_client take a quarter of a second to
        # import, and most servers have no admin port.
        from trio_echo.server.admin import admin_front  # noqa: PLC0415 - see above

        listeners = [
            trio.SocketListener(trio.socket.from_stdlib_socket(listener.sock))
            for listener in self._admin_listeners
        ]
        front = admin_front(self.metrics, self._config.prefix, lambda: self.ready)
        await front.serve(listeners)


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
        ConfigError: a port cannot be listened on, a TLS file not be used, or
            the memory limit not be held.
    """
    context = None if config.tls is None else server_context(config.tls)
    memory = find_memory(config.max_memory)
    with ExitStack() as sockets:
        listeners, admin_listeners = await open_listeners(config)
        for listener in (*listeners, *admin_listeners):
            sockets.enter_context(listener.sock)
            if memory is not None:
                memory.bound_buffers(listener.sock)
        server = Server(config, listeners, admin_listeners)
        await server.run(context, memory, task_status=task_status)
