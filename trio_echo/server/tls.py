"""TLS on the server's side: the certificates, and a stream that can be half-closed.

Why not `trio.SSLStream`? It throws away the alert of a failed handshake, so
that a client without a certificate reads a bare end of file where TLS has the
words "certificate required"; it cannot end its own side and wait for the
client's end, as the polite end of a conversation does; and where clients end
with a bare end of file, as many do, it takes them either for broken or never
sends a ``close_notify`` to any.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import trio

from trio_echo.errors import ConfigError, TrioEchoError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_echo.server.config import TLSConfig

__all__ = ["HANDSHAKE_TIMEOUT", "HandshakeError", "TLSStream", "Transport", "server_context"]

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds that a client gets for the handshake."""

_CHUNK: Final = 64 * 1024
"""Bytes received or encrypted at once: four records of TLS."""

_T = TypeVar("_T")


class _End(Enum):
    """The end of file of the stream underneath."""

    EOF = auto()


_EOF: Final = _End.EOF


class HandshakeError(TrioEchoError):
    """There will be no TLS with this client; the message says why."""


def server_context(config: TLSConfig) -> ssl.SSLContext:
    """Load the certificates and decide on everything else about TLS.

    TLS 1.2 is the oldest version spoken. With `TLSConfig.client_ca`, a client
    without a certificate of those authorities is refused.

    Raises:
        ConfigError: a file is missing, is not what it should be, or does not
            belong to the others; the field is that of the file at fault.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # The server speaks only when it has an answer. Tickets would be sent unasked
    # after the handshake, and a client that writes, never reads, and closes
    # would break the connection over them before its lines are read.
    context.num_tickets = 0
    _load_certificate(context, config)
    if config.client_ca is not None:
        _load_authorities(context, "tls_client_ca", config.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_certificate(context: ssl.SSLContext, config: TLSConfig) -> None:
    """Load the server's certificate and key, and tell which is at fault."""
    # A context that is thrown away reads the certificates alone: an error of
    # load_cert_chain does not say which of the two files it is about.
    _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "tls_cert", config.cert)
    if config.key is None:
        field, path = "tls_cert", config.cert
        missing = f"{path} has no private key in PEM form; give its file with --tls-key"
    else:
        field, path = "tls_key", config.key
        missing = f"{path} is no private key in PEM form"
        _check_readable(field, path)

    def refuse_password() -> str:
        # Without this, OpenSSL would ask on the terminal.
        remedy = "decrypt it first: openssl pkey -in FILE -out FILE"
        raise ConfigError(field, f"the private key in {path} is encrypted; {remedy}")

    try:
        context.load_cert_chain(config.cert, config.key, refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            message = f"the private key in {path} does not belong to the first certificate in "
            raise ConfigError(field, f"{message}{config.cert}") from error
        if error.reason is not None:
            raise ConfigError("tls_cert", f"{config.cert} is refused: {_words(error)}") from error
        raise ConfigError(field, missing) from error


def _load_authorities(context: ssl.SSLContext, field: str, path: Path) -> None:
    """Load a file of certificates, and nothing but certificates."""
    _check_readable(field, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        message = f"{path} holds no certificates in PEM form, or a damaged one"
        raise ConfigError(field, message) from error


def _check_readable(field: str, path: Path) -> None:
    """Refuse a file that cannot be read: ssl's own errors do not say which it was."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(field, f"cannot read {path}: {error.strerror}") from error


def _words(error: ssl.SSLError) -> str:
    """Say OpenSSL's reason in plain letters."""
    return (error.reason or "unknown").lower().replace("_", " ")


class Transport(Protocol):
    """What TLS needs of the stream underneath; every half-closeable stream of trio has it."""

    async def receive_some(self, max_bytes: int | None = None, /) -> bytes | bytearray:
        """Receive at least one byte, or none at the end of file."""

    async def send_all(self, data: bytes, /) -> None:
        """Send all of `data`."""

    async def send_eof(self) -> None:
        """Tell the client that nothing more comes."""


class TLSStream:
    """The server's side of one TLS connection, over any stream.

    For one task at a time. The first `receive_some` does the `handshake`, and
    raises what that raises.

    The client's ``close_notify`` and a bare end of file are both its end of
    file: an echo has nothing to lose by a cut that TLS could tell from an end.
    After either, answers can still be sent.

    Args:
        transport: the stream underneath; left for its owner to close.
        context: from `server_context`.
        received: what the client has sent already.

    Attributes:
        agreed: whether the handshake is done.
        moved: bytes received and sent so far underneath: records, not lines.
        amid: whether a handshake is under way, or a part of a record has arrived.
    """

    def __init__(
        self, transport: Transport, context: ssl.SSLContext, received: bytes = b""
    ) -> None:
        self.moved = 0
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.agreed = False
        self._ended = False
        self._readable = True
        self._header = b""
        self._rest = 0
        self._take(received)

    @property
    def amid(self) -> bool:
        """Whether a handshake is under way, or a part of a record has arrived."""
        handshaking = self.moved > 0 and not self.agreed
        return handshaking or bool(self._rest or self._header or self._incoming.pending)

    async def handshake(self) -> bool:
        """Agree on keys, and check the client's certificate where one is asked for.

        Returns:
            Whether there is TLS now; not if the client left first, as those do
            who only look whether the port is open.

        Raises:
            HandshakeError: the client failed, refused, or took longer than
                `HANDSHAKE_TIMEOUT`. It is told why, if TLS has words for it.
            trio.BrokenResourceError: the client broke the connection.
        """
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT):
                self.agreed = await self._step(self._tls.do_handshake) is not _EOF
                await self._flush()
        except trio.TooSlowError:
            raise HandshakeError(f"no handshake within {HANDSHAKE_TIMEOUT:g} s") from None
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise HandshakeError(_words(error.__cause__)) from error
            raise
        return self.agreed

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, or none at the client's end of file.

        After `send_eof` it goes on to return what the client has written before
        it read of the end; what OpenSSL cannot read then is read away.

        A cancellation loses nothing.

        Raises:
            trio.BrokenResourceError: the connection broke, or its TLS did.
        """
        await trio.lowlevel.checkpoint()
        if self._readable and not self._ended and not self.agreed and not await self.handshake():
            return b""
        if self.agreed and self._readable:
            try:
                received = await self._step(partial(self._tls.read, max_bytes or _CHUNK))
            except trio.BrokenResourceError as error:
                if not self._ended or not isinstance(error.__cause__, ssl.SSLError):
                    raise
                self._readable = False
            else:
                return b"" if received is _EOF else received
        while await self._transport.receive_some(_CHUNK):
            pass
        return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; after a cancellation, the stream is of no use.

        Raises:
            trio.BrokenResourceError: the connection broke, or its TLS did.
        """
        await trio.lowlevel.checkpoint()
        with memoryview(data) as view:
            for start in range(0, len(view), _CHUNK):
                await self._step(partial(self._tls.write, view[start : start + _CHUNK]))
                await self._flush()

    async def send_eof(self) -> None:
        """Send ``close_notify`` and end this side.

        Raises:
            trio.BrokenResourceError: the connection broke.
        """
        self._ended = True
        with suppress(ssl.SSLError):
            self._tls.unwrap()  # it writes its notice, then misses the client's
        await self._flush()
        await self._transport.send_eof()

    async def _step(self, step: Callable[[], _T]) -> _T | _End:
        """Have OpenSSL do something, with all the input that it needs."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush()
            except ssl.SSLZeroReturnError:
                return _EOF  # the client's own close_notify, behind ours
            except ssl.SSLError as error:
                with suppress(trio.BrokenResourceError):
                    await self._flush()  # the alert that tells the client why
                raise trio.BrokenResourceError from error
            data = await self._transport.receive_some(_CHUNK)
            if not data:
                # OpenSSL is not told: it would take this for an attack and
                # refuse to send the answers that are still owed.
                return _EOF
            self._take(data)

    def _take(self, data: bytes | bytearray) -> None:
        """Hand OpenSSL what the client has sent."""
        self.moved += len(data)
        self._follow(data)
        self._incoming.write(data)

    def _follow(self, data: bytes | bytearray) -> None:
        """Follow where records end: OpenSSL does not tell whether it has a part of one.

        A record is five bytes, the last two of which say how many come behind them.
        """
        place = 0
        while place < len(data):
            if not self._rest:
                taken = data[place : place + 5 - len(self._header)]
                self._header += bytes(taken)
                place += len(taken)
                if len(self._header) == 5:  # noqa: PLR2004 - see above
                    self._rest, self._header = int.from_bytes(self._header[3:]), b""
            step = min(self._rest, len(data) - place)
            self._rest -= step
            place += step

    async def _flush(self) -> None:
        """Send what OpenSSL has written."""
        if data := self._outgoing.read():
            await self._transport.send_all(data)
            self.moved += len(data)
