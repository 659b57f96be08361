"""``trio-echo serve``: the backend whose answers name it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from trio_echo.errors import ConfigError
from trio_echo.server import Server, ServerConfig
from trio_echo.server import serve as run_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["serve"]


def serve(
    ports: Annotated[
        str,
        typer.Argument(
            metavar="PORTS",
            envvar="TRIO_ECHO_PORTS",
            help="Port to listen on, or several as 9000,9001; 0 for any free one.",
        ),
    ],
    prefix: Annotated[
        str,
        typer.Argument(
            metavar="PREFIX",
            envvar="TRIO_ECHO_PREFIX",
            help="The name in front of every answer; '' echoes plainly.",
        ),
    ],
) -> None:
    """Echo every line with PREFIX in front."""
    config = ServerConfig(ports=parse_ports("ports", ports), prefix=prefix)
    raise typer.Exit(trio.run(serve_until_signalled, config))


def parse_ports(field: str, text: str) -> list[int]:
    """Read a comma list of ports."""
    try:
        return [int(port) for port in text.split(",")]
    except ValueError:
        raise ConfigError(
            field, f"must be port numbers separated by commas, got {text!r}"
        ) from None


async def serve_until_signalled(config: ServerConfig) -> int:
    """Serve; the first SIGINT or SIGTERM drains, the second cuts. Return the exit code."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as serving:
                server: Server = await serving.start(run_server, config)
                nursery.start_soon(end_on_signals, signals, server)
            nursery.cancel_scope.cancel()
    return 1 if server.cut_connections else 0


async def end_on_signals(signals: AsyncIterator[int], server: Server) -> None:
    """Drain at the first signal, cut at the next."""
    async for _ in signals:
        if server.ready:
            server.drain()
        else:
            server.cut()
