"""Opening the sockets that the server listens on."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from trio_echo.errors import ConfigError
from trio_echo.text import format_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_echo.server.config import ServerConfig

__all__ = ["Listener", "open_listeners", "peer"]

_BACKLOG = 0xFFFF  # the kernel takes less where net.core.somaxconn says so
_TRIES_FOR_ANY_PORT = 16

_Address: TypeAlias = tuple[socket.AddressFamily, str, int]
"""Family, numeric host, and the scope of a link-local one: the index of its interface."""

# Every address is meant: what two scanners warn of.
_EVERY_IPV4: Final = (socket.AF_INET, "0.0.0.0", 0)  # noqa: S104  # nosec B104
_EVERY_IPV6: Final = (socket.AF_INET6, "::", 0)


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A non-blocking socket that listens.

    Attributes:
        sock: the socket.
        host: the address it is bound to.
        port: the real port, also where 0 was asked.
        tls: whether its clients speak TLS.
    """

    sock: socket.socket
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def peer(address: tuple[Any, ...]) -> str:
    """Write the address that a socket gives for its peer or itself."""
    return format_address(_scoped(address), address[1])


def _scoped(address: tuple[Any, ...]) -> str:
    """Take the host of a socket's address, with the interface of a link-local one."""
    host, _, *rest = address
    scope = rest[1] if rest else 0
    return f"{host}%{socket.if_indextoname(scope)}" if scope else str(host)


async def open_listeners(config: ServerConfig) -> tuple[list[Listener], list[Listener]]:
    """Listen on every port of the configuration, on each of its hosts.

    Returns:
        The listeners for clients in the order of the configuration, plain ports
        first, and those of the admin port, if there is one. A port 0 is the
        same real port on all hosts.

    Raises:
        ConfigError: an address cannot be listened on; none is left open.
    """
    addresses = [address for host in config.hosts for address in await _resolve(host)]
    wanted = [("ports", port) for port in config.ports]
    if config.tls is not None:
        wanted += [("tls_ports", port) for port in config.tls.ports]
    admin = [] if config.admin_port is None else [("admin_port", config.admin_port)]
    with ExitStack() as opened:
        both = _open(addresses, wanted, opened), _open(addresses, admin, opened)
        opened.pop_all()
    return both


def _open(
    addresses: Sequence[_Address], wanted: Iterable[tuple[str, int]], opened: ExitStack
) -> list[Listener]:
    """Listen on ports, each given with the field it stands in."""
    listeners = []
    for field, port in wanted:
        for sock in _open_port(field, _without_overlaps(addresses), port):
            opened.enter_context(sock)
            name = sock.getsockname()
            listeners.append(Listener(sock, _scoped(name), name[1], tls=field == "tls_ports"))
    return listeners


def _open_port(field: str, addresses: Sequence[_Address], port: int) -> list[socket.socket]:
    """Listen on one port of all addresses; of every address if none is given."""
    if not addresses:
        return [_listen_everywhere(field, port)]
    if port != 0:
        return _listen_on_all(field, addresses, port)
    for _ in range(_TRIES_FOR_ANY_PORT - 1):
        # The port that is free on the first address may be taken on another.
        try:
            return _listen_on_all(field, addresses, port)
        except ConfigError:
            continue
    return _listen_on_all(field, addresses, port)


def _without_overlaps(addresses: Iterable[_Address]) -> list[_Address]:
    """Keep each address once, and none beside one that stands for all of its family.

    Two sockets cannot listen on the same address, and the second would be told
    that it is in use.
    """
    once = list(dict.fromkeys(addresses))
    everywhere = [address for address in once if address in (_EVERY_IPV4, _EVERY_IPV6)]
    families = {family for family, _, _ in everywhere}
    return [each for each in once if each in everywhere or each[0] not in families]


def _listen_on_all(field: str, addresses: Sequence[_Address], port: int) -> list[socket.socket]:
    # With an IPv4 address beside it, "::" is for IPv6 alone; the kernel would
    # take the one for in use that the other covers.
    dual = all(family == socket.AF_INET6 for family, _, _ in addresses)
    with ExitStack() as opened:
        socks = []
        for address in addresses:
            sock = opened.enter_context(_listen(field, address, port, dual=dual))
            port = sock.getsockname()[1]
            socks.append(sock)
        opened.pop_all()
    return socks


def _listen_everywhere(field: str, port: int) -> socket.socket:
    """Listen on every address: dual stack, or IPv4 where there is no IPv6."""
    try:
        return _listen(field, _EVERY_IPV6, port, dual=True)
    except _NoFamilyError:
        return _listen(field, _EVERY_IPV4, port)


async def _resolve(host: str) -> list[_Address]:
    """Find the addresses of a host of the configuration, without blocking trio's thread."""
    try:
        found = await trio.socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise ConfigError("host", f"cannot resolve {host!r}: {error}") from error
    return [
        (family, str(address[0]), int(address[-1]) if family == socket.AF_INET6 else 0)
        for family, _, _, _, address in found
    ]


class _NoFamilyError(ConfigError):
    """This machine does not speak the address family."""


def _listen(field: str, address: _Address, port: int, *, dual: bool = False) -> socket.socket:
    """Listen on one address; on every IPv4 one too, if it is every IPv6 one and `dual`."""
    family, host, scope = address
    with ExitStack() as opened:
        try:
            sock = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Inherited by each connection, which spares it the call: an answer
            # must not wait for the acknowledgement of the one before it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(
                    socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::" or not dual)
                )
                sock.bind((host, port, 0, scope))
            else:
                sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError as error:
            raise _explained(field, host, port, error) from error
        opened.pop_all()
    return sock


def _keep_alive(listener: socket.socket) -> None:
    """Have the kernel ask quiet clients whether they are still there.

    One that vanished without a word ends after two minutes, and not only after
    the idle timeout. Inherited by each connection, too.

    Why sixty questions, one a second, and not four? The kernel's timers have two
    seconds of grain after a minute, so that it asks thousands of idle clients in one
    instant. Loopback and a container's interface take a thousand packets by then
    (net.core.netdev_max_backlog) and drop the rest; who was not heard is asked
    again, all in one instant. With four questions 5,496 of 9,500 clients were ended
    that were there.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS has another name for the first, and the same for the others.
    idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined]  # macOS
    for option, value in ((idle, 60), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 60)):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


def _explained(field: str, host: str, port: int, error: OSError) -> ConfigError:
    """Say what can be done about a socket that cannot listen."""
    address = format_address(host, port)
    if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL} and host == "::":
        return _NoFamilyError(field, f"cannot listen on {address}: no IPv6 here")
    if error.errno == errno.EADDRINUSE:
        remedy = "already in use; choose another port, or 0 for any free one"
        return ConfigError(field, f"{address} is {remedy}")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return ConfigError(field, f"not allowed to listen on {address}; choose a port from 1024 up")
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError("host", f"{host} is not an address of this machine")
    return ConfigError(field, f"cannot listen on {address}: {os.strerror(error.errno or 0)}")
