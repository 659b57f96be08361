"""``--listen [HOST:]PORT``: where a command serves its pages."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio

from trio_echo.errors import ConfigError
from trio_echo.server.config import ServerConfig
from trio_echo.server.listeners import open_listeners
from trio_echo.text import printable

if TYPE_CHECKING:
    from trio_echo.server.listeners import Listener

__all__ = ["as_trio", "listen_on", "parse_listen", "url_of"]


def parse_listen(text: str) -> tuple[str, int]:
    """Read ``PORT`` or ``HOST:PORT``; without a host, every address is meant.

    Raises:
        ConfigError: it is of another form.
    """
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or (":" in host and not host.endswith("]")):
        shown = printable(text)
        raise ConfigError("listen", f"must be PORT or HOST:PORT, such as 8080, got '{shown}'")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def listen_on(place: tuple[str, int]) -> list[Listener]:
    """Listen there.

    Raises:
        ConfigError: names ``listen``; nothing is left open.
    """
    host, port = place
    try:
        listeners, _ = await open_listeners(
            ServerConfig(ports=[port], hosts=[host] if host else [])
        )
    except ConfigError as error:
        raise ConfigError("listen", error.reason) from None
    return listeners


def as_trio(listener: Listener) -> trio.SocketListener:
    """A listener as trio has it."""
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener.sock))


def url_of(listener: Listener) -> str:
    """Where a browser on this machine finds a listener, also one on every address."""
    everywhere = ip_address(listener.host.partition("%")[0]).is_unspecified
    return f"http://{f'localhost:{listener.port}' if everywhere else listener}/"
