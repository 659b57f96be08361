"""The probe's end of one connection: bytes out and bytes in, plain or TLS."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Protocol

import trio

from trio_echo.errors import ConfigError
from trio_echo.prober.outcome import FailureError, Outcome

if TYPE_CHECKING:
    from trio_echo.prober.config import ProbeTLS

__all__ = ["Address", "PlainWire", "TLSWire", "Wire", "open_plain", "tls_context"]

_CHUNK = 64 * 1024

_LATE_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24 if sys.platform == "linux" else None)
"""Linux: bind the address alone and leave the port to connect, which knows the
other end and so may share a port between destinations. Python names it since 3.12."""

Address = tuple[int, tuple[str | int | bytes, ...]]
"""A family and what `connect` takes, as from getaddrinfo."""


class Wire(Protocol):
    """What one exchange needs of a connection."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    async def receive(self) -> bytes:
        """Wait for some bytes; none at end of file."""

    def shutdown(self) -> None:
        """End the sending side."""

    def close(self) -> None:
        """Let go of the connection; more often than once does nothing."""


class PlainWire:
    """A connected, non-blocking TCP socket.

    Thousands of connections a second go through here, so it is the bare
    socket: one wait per answer, no stream or address look-up in between.
    """

    __slots__ = ("socket",)

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    async def send(self, data: bytes) -> None:
        """Send all of it; returns at once while the kernel takes it."""
        while True:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            await trio.lowlevel.wait_writable(self.socket)

    async def receive(self) -> bytes:
        """Wait for some bytes; none at end of file. Always yields to other tasks."""
        while True:
            # An answer is never there already, so the wait comes first.
            await trio.lowlevel.wait_readable(self.socket)
            try:
                return self.socket.recv(_CHUNK)
            except BlockingIOError:  # pragma: no cover - a spurious wake-up, which epoll allows
                continue

    def shutdown(self) -> None:
        """End the sending side."""
        self.socket.shutdown(socket.SHUT_WR)

    def is_self(self) -> bool:
        """Whether the socket is connected to itself.

        Connecting to a port of the ephemeral range that nobody listens on can
        meet the connection's own port: TCP's simultaneous open, alone. It then
        echoes plainly whatever one sends.
        """
        return bool(self.socket.getsockname() == self.socket.getpeername())

    def close(self) -> None:
        """Let go of the connection."""
        self.socket.close()


class TLSWire:
    """TLS over a connected socket.

    Args:
        sock: the socket; it belongs to this object from now on.
        context: from `tls_context`.
        server_name: to ask for and to find in the certificate.
    """

    __slots__ = ("_plain", "_stream")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        self._plain = sock
        self._stream = trio.SSLStream(
            trio.SocketStream(trio.socket.from_stdlib_socket(sock)),
            context,
            server_hostname=server_name,
            https_compatible=True,
        )

    async def handshake(self) -> None:
        """Shake hands.

        Raises:
            FailureError: the other side ended the connection meanwhile.
        """
        await self._stream.do_handshake()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Wait for some bytes; none at end of file."""
        return bytes(await self._stream.receive_some(_CHUNK))

    def shutdown(self) -> None:
        """Never asked for: the configuration refuses half-close with TLS."""
        raise AssertionError

    def close(self) -> None:
        """Let go of the connection; its end is not announced, as with HTTPS."""
        self._stream.transport_stream.socket.close()


async def open_plain(address: Address, source: str | None) -> PlainWire:
    """Connect to a numeric address.

    Args:
        address: where to.
        source: the local address to connect from, or None.

    Raises:
        OSError: as the kernel says.
    """
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            _bind(sock, source)
        await _connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return PlainWire(sock)


async def _connect(sock: socket.socket, where: tuple[str | int | bytes, ...]) -> None:
    """Connect without blocking. On loopback that is done at once, without a wait."""
    error = sock.connect_ex(where)
    if error == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))


def _bind(sock: socket.socket, source: str) -> None:
    """Bind the local address; an address that is not this machine's is a local failure."""
    if _LATE_PORT is not None:  # pragma: no branch - only Linux has it
        sock.setsockopt(socket.IPPROTO_IP, _LATE_PORT, 1)
    try:
        sock.bind((source, 0))
    except OSError as error:
        detail = f"cannot connect from {source}: {error.strerror}"
        raise FailureError(Outcome.LOCAL, detail) from error


def tls_context(tls: ProbeTLS) -> ssl.SSLContext:
    """Make the TLS context, which verifies the other side.

    Raises:
        ConfigError: a file cannot be read or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        reason = f"cannot use {tls.ca}: {error.strerror or error}"
        raise ConfigError("tls_ca", reason) from None
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except (OSError, ssl.SSLError) as error:
            files = f"{tls.cert}" + (f" and {tls.key}" if tls.key else "")
            reason = f"cannot use {files}: {error.strerror or error}"
            raise ConfigError("tls_cert", reason) from None
    return context
