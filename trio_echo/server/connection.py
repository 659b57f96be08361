"""One connection: its conversation from the first byte to the polite end, and its clock."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from trio_echo.errors import TrioEchoError
from trio_echo.framing import LineTooLongError
from trio_echo.server.drain import QUIET, Sight, may_end, retransmission, unacknowledged, unsent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_echo.framing import Framer
    from trio_echo.server.metrics import Reason
    from trio_echo.server.stream import Stream

__all__ = ["Connection", "EndedError", "ProxyError", "converse", "end_politely", "receive_header"]

_T = TypeVar("_T")

_GOODBYE: Final = 2.0
"""Seconds that TLS's goodbye to a client that has ended may take."""

_LOOK: Final = 0.05
"""Seconds between two looks whether an answer has left."""

_LINGER: Final = 2.0
"""Seconds that a client gets to read the last answer and end its side."""


HEADER_TIMEOUT: Final = 10.0
"""Seconds that a proxy gets for its header."""


class ProxyError(TrioEchoError):
    """This connection begins with no PROXY header; the message says why not."""


class EndedError(Exception):
    """Raised in a conversation, through `Stream.interrupt`: the server ends it.

    Args:
        reason: ``drain``, ``idle`` or ``memory``.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Connection:
    """One client, as the limits, the drain and the metrics see it.

    Args:
        stream: the client's; closed by whoever serves it.
        framer: fresh.
        client: the client's address, as the socket gives it.
        descriptor: of the socket under the stream.

    Attributes:
        header: what has come of a PROXY header that is not complete yet.
    """

    __slots__ = (
        "_descriptor",
        "_heard",
        "_moved",
        "_since",
        "client",
        "framer",
        "header",
        "stream",
    )

    def __init__(
        self, stream: Stream, framer: Framer, client: tuple[str, int], descriptor: int
    ) -> None:
        self.stream = stream
        self.framer = framer
        self.client = client
        self.header: bytes | bytearray = b""
        self._descriptor = descriptor
        self._heard: int | None = None
        self._moved = -1
        self._since = 0.0

    @property
    def lines(self) -> int:
        """Lines answered."""
        return self.framer.lines

    @property
    def received(self) -> int:
        """Bytes received, above TLS."""
        return self.stream.received

    @property
    def sent(self) -> int:
        """Bytes sent, above TLS."""
        return self.stream.sent

    @property
    def held(self) -> int:
        """Bytes held for the client, here and by the kernel, as near as can be told."""
        unread = unacknowledged(self._descriptor)
        return len(self.header) + self.framer.carried + self.stream.unsent + unread

    def quiet(self, now: float) -> float:
        """Tell for how many seconds no byte was seen to move, either way, under TLS too.

        It looks at counters that are there anyway, now and then, in place of a
        time stamp for every chunk. The first look starts the clock.
        """
        moved = self.stream.moved
        if self.stream.blocked:
            # The kernel asks for more only when a third of its buffer is free,
            # megabytes. What a slow client reads before that moves, too.
            moved -= unacknowledged(self._descriptor)
        if moved != self._moved:
            self._moved = moved
            self._since = now
        return now - self._since

    def done(self, now: float, since: float) -> bool:
        """Tell whether a drain may end it, whose port has refused for `since` seconds."""
        quiet = min(self.quiet(now), since)
        owed = self.framer.partial or self.stream.blocked or self.header
        if quiet < QUIET or owed or self._heard is not None:
            return False  # as for most, and the kernel need not be asked
        return may_end(
            Sight(
                quiet=quiet,
                owed=not self.taken,
                pending=self.stream.pending(),
                retransmission=retransmission(self._descriptor),
            )
        )

    def told(self) -> None:
        """Note that the server ends its side now: what comes from here on was not answered."""
        self._heard = self.stream.received

    @property
    def unanswered(self) -> bool:
        """Whether the client wrote on after that, before it can have known."""
        return self._heard is not None and self.stream.received != self._heard

    @property
    def taken(self) -> bool:
        """Whether the client's side has taken all that was sent, the end included."""
        return unacknowledged(self._descriptor) == 0

    async def leave(self) -> None:
        """Wait until all answers have left this machine; no checkpoint if they have."""
        while unsent(self._descriptor):  # noqa: ASYNC110 - the kernel sets no event
            await trio.sleep(_LOOK)

    def end(self, reason: Reason) -> None:
        """End the conversation for a reason of the server's, where a task waits in it.

        A ``drain`` goes on if something has arrived by the time that the task runs.
        ``memory`` is for a client that does not take what is held for it: the
        kernel is to forget that too.
        """
        if reason == "memory":
            _discard_at_close(self._descriptor)
        self.stream.interrupt(EndedError(reason))


async def receive_header(connection: Connection) -> bytes | None:
    """Receive the PROXY header that a connection begins with.

    The client of the connection is the one of the header then, if that names any.

    Returns:
        What has been received behind the header, a chunk of the framer at most;
        None if nothing came before the end of file, as from those who only look
        whether the port is open.

    Raises:
        ProxyError: something else came, or too little in `HEADER_TIMEOUT` seconds.
        EndedError: the server ends it.
        trio.BrokenResourceError: the other side broke the connection.
    """
    # Here, since most servers expect none, and it takes a millisecond.
    from trio_echo.proxy_header import read  # noqa: PLC0415 - see above

    stream, size = connection.stream, connection.framer.chunk_size
    connection.header = begun = bytearray()
    try:
        with trio.fail_after(HEADER_TIMEOUT):
            while True:
                chunk = await _insisting(stream, partial(stream.receive_some, size))
                begun += chunk
                header = read(begun)
                if header is not None:
                    connection.client = header.source or connection.client
                    return bytes(begun[header.size :])
                if not chunk:
                    break
    except trio.TooSlowError:
        raise ProxyError(f"no PROXY header within {HEADER_TIMEOUT:g} s") from None
    except ValueError as error:
        raise ProxyError(str(error)) from error
    finally:
        connection.header = b""
    if begun:
        raise ProxyError("the connection ended amid its PROXY header")
    return None


async def converse(
    stream: Stream,
    framer: Framer,
    *,
    tls: bool = False,
    greeting: bytes = b"",
    received: bytes = b"",
) -> Reason:
    """Answer line after line, until the client ends or breaks the contract.

    Args:
        stream: the connection; left for the caller to close.
        framer: fresh.
        tls: whether the stream has words for the end.
        greeting: is sent before everything else.
        received: what has been received already.

    Returns:
        ``eof``, ``line-too-long``, or the reason of an `EndedError`. Every
        answer is sent by then; but of ``idle`` and ``memory``, which may be
        that the client does not read. Where the client has not ended, `end_politely` is next.

    Raises:
        trio.BrokenResourceError: the client broke the connection.
        HandshakeError: there is no TLS with this client, which was told why;
            `end_politely` gives it the time to read that.
    """
    try:
        if greeting:
            await _insisting(stream, partial(stream.send_all, greeting))
        while True:
            try:
                if received:
                    chunk, received = received, b""
                    await stream.send_all(framer.feed(chunk))
                await stream.relay(framer.feed, framer.chunk_size)
                break
            except LineTooLongError as error:
                await stream.send_all(error.answer)
                return "line-too-long"
            except EndedError as ended:
                # What has come since the drain's look is served like all before it.
                # From here to the end of file that the client reads is no checkpoint.
                if ended.reason != "drain" or not stream.pending():
                    return ended.reason
        if rest := framer.end():
            await stream.send_all(rest)
    except EndedError as ended:
        # Amid the last words too, when the client does not read them.
        return ended.reason
    if tls:
        with trio.move_on_after(_GOODBYE), suppress(trio.BrokenResourceError):
            await stream.send_eof()
    return "eof"


async def _insisting(stream: Stream, step: Callable[[], Awaitable[_T]]) -> _T:
    """Do a step; again where a drain ends it although something has arrived."""
    while True:
        try:
            return await step()
        except EndedError as ended:
            if ended.reason != "drain" or not stream.pending():
                raise


async def end_politely(stream: Stream) -> None:
    """End a connection whose client has not, so that it reads all it was sent.

    A close with unread input, or with input still on its way, has the kernel
    send a reset, and a reset destroys answers that the client has not read. So
    this side ends, and reads the client's away until that ends too, for
    `_LINGER` seconds at most; less if an `EndedError` finds it quiet. What is read
    here counts as received by the stream.
    """
    with trio.move_on_after(_LINGER), suppress(trio.BrokenResourceError, EndedError):
        await stream.send_eof()
        while await stream.receive_some():
            pass


def _discard_at_close(descriptor: int) -> None:
    """Have the kernel drop what a socket's buffers hold when it is closed, and tell the client."""
    with suppress(OSError), socket.socket(fileno=descriptor) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            sock.detach()
