"""The socket's end of it, and the errors that come from there."""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import suppress

import pytest
import trio

from trio_echo.prober.counts import Outcome
from trio_echo.prober.exchange import PlainWire, classify


async def test_send_goes_on_where_the_kernel_stopped() -> None:
    """More than the buffers hold is sent in full, in order, as the other side reads."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    payload = bytes(range(256)) * 20_000
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += ours.send(bytes(4096))
    received = bytearray()

    async with trio.open_nursery() as nursery:

        async def read() -> None:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
            async with stream:
                async for chunk in stream:
                    received.extend(chunk)

        nursery.start_soon(read)
        wire = PlainWire(ours)
        await wire.send(payload)
        wire.shutdown()
        assert await wire.receive() == b""
        wire.close()
        wire.close()
    assert bytes(received) == bytes(filled) + payload


def wrapped(error: Exception) -> OSError:
    """As trio's open_tcp_stream raises it: no errno, one error per address inside."""
    outer = OSError("all attempts to connect failed")
    outer.__cause__ = ExceptionGroup("several", [error, OSError(errno.ENETUNREACH, "no way")])
    return outer


def chained(error: BaseException) -> trio.BrokenResourceError:
    """As a stream raises it while another error is handled."""
    outer = trio.BrokenResourceError("broken")
    outer.__context__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "connected", "outcome", "words"),
    [
        (OSError(errno.ETIMEDOUT, "timed out"), False, Outcome.CONNECT_TIMEOUT, "timed out"),
        (OSError(errno.ETIMEDOUT, "timed out"), True, Outcome.READ_TIMEOUT, "timed out"),
        (OSError(errno.EPIPE, "broken pipe"), True, Outcome.RESET, "broken pipe"),
        (OSError(errno.ENOTCONN, "not connected"), False, Outcome.RESET, "not connected"),
        (OSError(errno.EHOSTUNREACH, "no route"), False, Outcome.UNREACHABLE, "no route"),
        (OSError(errno.ENOBUFS, "no buffers"), True, Outcome.LOCAL, "no buffers"),
        (OSError(errno.EADDRNOTAVAIL, "no ports"), False, Outcome.LOCAL, "no ports"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), False, Outcome.RESOLVE, "unknown"),
        (socket.gaierror("odd"), False, Outcome.RESOLVE, "odd"),
        (wrapped(OSError(errno.ECONNREFUSED, "refused")), False, Outcome.REFUSED, "refused"),
        (chained(OSError(errno.ECONNRESET, "reset")), True, Outcome.RESET, "reset"),
        (chained(ssl.SSLError(1, "odd failure")), True, Outcome.TLS, "odd failure"),
        (ExceptionGroup("all of them", [ValueError("odd")]), False, Outcome.LOCAL, "all of them"),
        (trio.BrokenResourceError("no cause"), True, Outcome.LOCAL, "no cause"),
        (trio.BrokenResourceError(), True, Outcome.LOCAL, "BrokenResourceError"),
    ],
)
def test_outcome_is_found_in_the_causes(
    error: BaseException, *, connected: bool, outcome: Outcome, words: str
) -> None:
    """However deep the error that says it lies."""
    failure = classify(error, connected=connected)
    assert failure.outcome is outcome
    assert words in failure.detail
