"""One connection from its start to its end: the bytes, TLS, and how it ended."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Protocol

import trio

from trio_echo.errors import ConfigError
from trio_echo.prober.counts import Outcome, Result
from trio_echo.prober.dialogue import FailureError, PeerCertificate, shown
from trio_echo.proxy_header import write as write_proxy_header
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_echo.prober.config import ProbeConfig, ProbeTLS
    from trio_echo.prober.dialogue import CertificateField

__all__ = ["Address", "Exchanger", "PlainWire", "TLSWire", "Wire", "classify", "open_plain"]

_CHUNK = 64 * 1024

_LATE_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24 if sys.platform == "linux" else None)
"""Linux: bind the address alone and leave the port to connect, which knows the
other end and so may share a port between destinations. Python names it since 3.12."""

Address = tuple[int, tuple[str | int | bytes, ...]]
"""A family and what `connect` takes, as from getaddrinfo."""

_BY_ERRNO = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.ENETDOWN: Outcome.UNREACHABLE,
    errno.EHOSTDOWN: Outcome.UNREACHABLE,
    errno.ECONNRESET: Outcome.RESET,
    errno.ECONNABORTED: Outcome.RESET,
    errno.EPIPE: Outcome.RESET,
    errno.ENOTCONN: Outcome.RESET,  # by the time that one asks for the other end's address
}

_EXHAUSTED = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EADDRNOTAVAIL,
    errno.EADDRINUSE,
}


class Exchanger:
    """Makes connections to one address and speaks one dialogue over each.

    Args:
        config: what to send, and how long to wait.

    Attributes:
        run: a tag of this run, unique among all; every line to an echo carries it.
        dialogue: what is spoken.

    Raises:
        ConfigError: a TLS file or the server name cannot be used.
    """

    def __init__(self, config: ProbeConfig) -> None:
        self.run = secrets.token_hex(5)
        self.dialogue = config.dialogue(self.run)
        self._config = config
        self._context = None
        self._server_name = ""
        self._silent_end = ""
        if config.tls is not None:
            self._context = tls_context(config.tls, config.identify_cert)
            self._server_name = config.tls.server_name or config.host
            _check_server_name(self._context, config)
            # In TLS 1.3 the handshake is over before the server looks for the client's
            # certificate, and a server that misses it may just close.
            if config.tls.cert is None:
                self._silent_end = "no client certificate was shown: does it want one?"
        self._sources = tuple(config.source_addresses) or (None,)

    async def exchange(self, address: Address, index: int, intended: float) -> Result:
        """Make one connection and judge how it ends.

        Args:
            address: where to connect.
            index: which connection of the run this is, from 0.
            intended: when it should have started, in trio's time.

        Returns:
            What happened. Nothing is left open, also when cancelled.
        """
        started = trio.current_time()
        lag = max(0.0, started - intended)
        wire: Wire | None = None
        connected = answered = 0.0
        name = ""
        mixed = False
        try:
            wire = await self.open(address, index)
            connected = sent = trio.current_time()
            for number in range(self._config.lines):
                found = await self.speak(wire, index, number)
                if not number:
                    name, answered = found, trio.current_time() - sent
                mixed |= found != name
            if self._config.half_close:
                await self._finish(wire)
        except FailureError as error:
            failure = error
        except (OSError, trio.BrokenResourceError) as error:
            failure = classify(error, connected=bool(connected))
        else:
            return Result(Outcome.OK, name, mixed, connected - intended, answered, lag)
        finally:
            if wire is not None:
                wire.close()
        if failure.outcome is Outcome.EOF_BEFORE_ANSWER:
            failure.detail = failure.detail or self._silent_end
        took = trio.current_time() - started
        return Result(failure.outcome, lag=lag, took=took, detail=failure.detail)

    async def open(self, address: Address, index: int) -> Wire:
        """Connect from the source whose turn it is at this connection, and shake hands.

        A PROXY header and TLS are as the configuration has them.

        Returns:
            A connection that stands. Nothing is left open where this raises, also
            when cancelled.

        Raises:
            FailureError: not in time, or the source is no address of this machine.
            OSError: as the kernel says.
            trio.BrokenResourceError: the handshake failed; its cause says why.
        """
        wire: Wire | None = None
        late = FailureError(Outcome.CONNECT_TIMEOUT, "")
        with trio.move_on_after(self._config.timeout):
            try:
                wire = plain = await open_plain(address, self._sources[index % len(self._sources)])
                if self._config.proxy_protocol is not None:
                    await plain.send(write_proxy_header(self._config.proxy_protocol, *plain.ends()))
                if self._context is not None:
                    late = FailureError(Outcome.TLS, "no handshake in time")
                    wire = secure = TLSWire(plain.socket, self._context, self._server_name)
                    await secure.handshake()
            except BaseException:
                if wire is not None:
                    wire.close()
                raise
            return wire
        raise late

    async def speak(self, wire: Wire, index: int, number: int) -> str:
        """Make request `number` of connection `index`, and wait for who answers.

        Returns:
            The name of the backend.

        Raises:
            FailureError: no answer, not in time, or not ours.
            OSError, trio.BrokenResourceError: the connection broke.
        """
        name = self.dialogue.known(wire)
        if name is not None:
            return name
        request = self.dialogue.request(index, number)
        answer = self.dialogue.answer(request)
        with trio.move_on_after(self._config.timeout):
            await wire.send(request)
            if self._config.half_close and number == self._config.lines - 1:
                wire.shutdown()
            while name is None:
                chunk = await wire.receive()
                name = answer.feed(chunk) if chunk else answer.end()
            if not name and wire.is_self():
                raise FailureError(Outcome.REFUSED, "connected to itself: nothing listens there")
            return name
        raise answer.late()

    async def _finish(self, wire: Wire) -> None:
        """Wait for the end of file after the last answer.

        Raises:
            FailureError: it does not come, or something else does.
        """
        with trio.move_on_after(self._config.timeout):
            if rest := await wire.receive():
                raise FailureError(Outcome.WRONG_ECHO, f"after the answers came {shown(rest)}")
            return
        raise FailureError(Outcome.READ_TIMEOUT, "answered, but no end of file")


class Wire(Protocol):
    """What one exchange needs of a connection."""

    async def send(self, data: bytes) -> None:
        """Send all of it."""

    async def receive(self) -> bytes:
        """Wait for some bytes; none at end of file."""

    def shutdown(self) -> None:
        """End the sending side."""

    def is_self(self) -> bool:
        """Whether the other end is this one."""

    def certificate(self) -> PeerCertificate:
        """The certificate of the other side; only behind TLS."""

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
        ours, theirs = self.ends()
        return ours == theirs

    def ends(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Host and port of this end, and of the other."""
        ours, theirs = self.socket.getsockname(), self.socket.getpeername()
        return ours[:2], theirs[:2]

    def certificate(self) -> PeerCertificate:
        """Never asked for: to name a backend by its certificate implies TLS."""
        raise AssertionError

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

    __slots__ = ("_stream",)

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str) -> None:
        self._stream = trio.SSLStream(
            trio.SocketStream(trio.socket.from_stdlib_socket(sock)),
            context,
            server_hostname=server_name,
            https_compatible=True,
        )

    async def handshake(self) -> None:
        """Shake hands.

        Raises:
            trio.BrokenResourceError: that failed; its cause says why.
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

    def is_self(self) -> bool:
        """Never: a handshake takes a server."""
        return False

    def certificate(self) -> PeerCertificate:
        """The certificate of the other side, once the handshake is done."""
        stream = self._stream
        return PeerCertificate(stream.getpeercert(binary_form=True), stream.getpeercert())

    def close(self) -> None:
        """Let go of the connection; its end is not announced, as with HTTPS."""
        self._stream.transport_stream.socket.close()


async def open_plain(address: Address, source: str | None) -> PlainWire:
    """Connect to a numeric address. On loopback that is done at once, without a wait.

    Args:
        address: where to.
        source: the local address to connect from, or None.

    Raises:
        FailureError: `source` is no address of this machine.
        OSError: as the kernel says.
    """
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            _bind(sock, source)
        error = sock.connect_ex(where)
        if error == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))  # noqa: TRY301 - closes as any other does
    except BaseException:
        sock.close()
        raise
    return PlainWire(sock)


def _bind(sock: socket.socket, source: str) -> None:
    """Bind the local address.

    Raises:
        FailureError: it is not this machine's.
    """
    if _LATE_PORT is not None:  # pragma: no branch - only Linux has it
        sock.setsockopt(socket.IPPROTO_IP, _LATE_PORT, 1)
    try:
        sock.bind((source, 0))
    except OSError as error:
        detail = f"this machine has no --source-address {source}: {error.strerror}"
        raise FailureError(Outcome.LOCAL, detail) from error


def tls_context(tls: ProbeTLS, named_by: CertificateField | None) -> ssl.SSLContext:
    """Make the TLS context, which verifies the other side.

    Args:
        tls: as configured.
        named_by: the part of the certificate that names the backend, or None. Then
            the certificate may be for any host, and a fingerprint takes no authority.

    Raises:
        ConfigError: a file cannot be read or is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        reason = f"cannot use {tls.ca}: {error.strerror or error}"
        raise ConfigError("tls_ca", reason) from None
    if named_by is not None:
        context.check_hostname = False
        if named_by == "sha256" and tls.ca is None:
            context.verify_mode = ssl.CERT_NONE
    if tls.cert is not None:
        try:
            context.load_cert_chain(tls.cert, tls.key)
        except (OSError, ssl.SSLError) as error:
            files = f"{tls.cert}" + (f" and {tls.key}" if tls.key else "")
            reason = f"cannot use {files}: {error.strerror or error}"
            raise ConfigError("tls_cert", reason) from None
    return context


def _check_server_name(context: ssl.SSLContext, config: ProbeConfig) -> None:
    """Refuse a server name that TLS cannot ask for, before anything is connected.

    Raises:
        ConfigError: names ``sni``, or ``target`` where its host is the name.
    """
    given = config.tls.server_name if config.tls else None
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=given or config.host)
    except (ValueError, TypeError) as error:  # an empty label, a leading dot, a NUL, too long
        name = printable(given or config.host)
        reason = f"TLS cannot ask for the server name '{name}': {error}"
        raise ConfigError("target" if given is None else "sni", reason) from None


def classify(error: BaseException, *, connected: bool) -> FailureError:
    """Find the outcome in an error and in the errors that caused it.

    Libraries wrap: trio's `open_tcp_stream` raises an OSError without errno,
    caused by a group of one error per address; its streams raise
    BrokenResourceError from the error of the socket or of TLS.

    Args:
        error: what was raised.
        connected: whether the connection stood by then, which tells a
            connect that timed out in the kernel from an answer that did.
    """
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return FailureError(Outcome.TLS, _tls_detail(cause))
        if isinstance(cause, socket.gaierror):
            return FailureError(Outcome.RESOLVE, cause.strerror or str(cause))
        if isinstance(cause, OSError) and cause.errno is not None:
            detail = cause.strerror or str(cause)
            if cause.errno == errno.ETIMEDOUT:
                outcome = Outcome.READ_TIMEOUT if connected else Outcome.CONNECT_TIMEOUT
                return FailureError(outcome, detail)
            if cause.errno in _EXHAUSTED:
                detail += (
                    ", out of descriptors, ports or memory: raise `ulimit -n`, use fewer "
                    "connections at once, or add a --source-address"
                )
            # Whatever the kernel refuses for another reason (permissions, a
            # family it lacks) is this machine's as well.
            outcome = _BY_ERRNO.get(cause.errno, Outcome.LOCAL)
            in_tls = isinstance(error, trio.BrokenResourceError)
            if outcome is Outcome.RESET and in_tls and not connected:
                # Some reset what they have no route for. Others close, and then TLS
                # itself says that the handshake failed.
                return FailureError(Outcome.TLS, f"{detail} in the handshake")
            return FailureError(outcome, detail)
    return FailureError(Outcome.LOCAL, printable(str(error)) or type(error).__name__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it, depth first, groups taken apart."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _causes(part)
    following = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if following is not None:
        yield from _causes(following)


def _tls_detail(error: ssl.SSLError) -> str:
    """What TLS says, without the source line of the C library."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {printable(error.verify_message)}"
    # An error that Python raises by itself, not the library, has no reason.
    return printable(getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
