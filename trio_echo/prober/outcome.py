"""How a connection can end, and the words and errors behind each ending."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple

from trio_echo.prober.counts import Outcome
from trio_echo.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HINTS",
    "NOTHING_MEASURED",
    "FailureError",
    "Outcome",
    "Result",
    "classify",
]


NOTHING_MEASURED = frozenset(
    {
        Outcome.RESOLVE,
        Outcome.REFUSED,
        Outcome.UNREACHABLE,
        Outcome.CONNECT_TIMEOUT,
        Outcome.TLS,
        Outcome.LOCAL,
    }
)
"""Endings that say nothing about a split as long as nothing else was ever seen:
the probe has then not reached what it should judge. Once an answer has come
they are the route's failures like any other, all but `Outcome.LOCAL`."""

HINTS = {
    Outcome.RESOLVE: "the name does not resolve here: check its spelling, or the cluster's DNS",
    Outcome.REFUSED: "nothing listens there: wrong port, or not started yet (--wait SECONDS waits)",
    Outcome.UNREACHABLE: "no way to that address: check routes, firewall and network policies",
    Outcome.CONNECT_TIMEOUT: (
        "no reply to the connection attempt: a firewall or network policy drops it, "
        "or the address is gone"
    ),
    Outcome.RESET: "cut by the other side: the proxy has no healthy backend, or the backend died",
    Outcome.EOF_BEFORE_ANSWER: (
        "connected, then closed before an answer: the proxy has no healthy backend"
    ),
    Outcome.EOF_MID_LINE: "closed in the middle of an answer: a backend was stopped without drain",
    Outcome.READ_TIMEOUT: (
        "connected, but no answer in time: a backend hangs, or it is no echo server by lines"
    ),
    Outcome.WRONG_ECHO: (
        "the answer was not the line with a name in front: "
        "another kind of server, or answers mixed up on the way"
    ),
    Outcome.TLS: (
        "the TLS handshake failed: check --tls-ca, --sni, the certificate, "
        "and that the port speaks TLS at all"
    ),
    Outcome.LOCAL: (
        "this machine's own failure, which says nothing about the route; out of descriptors "
        "or ports: raise `ulimit -n`, use fewer connections at once, or add a --source-address"
    ),
}
"""The usual cause of each ending, and the remedy."""


class Result(NamedTuple):
    """One connection from its start to its end.

    Attributes:
        outcome: how it ended.
        name: who answered the first line; empty for a plain echo, None where
            it ended otherwise than ok.
        mixed: whether another backend answered a later line.
        connect: seconds from the intended start until it could be written to,
            a TLS handshake included.
        answer: seconds from the first line's sending to its answer.
        lag: seconds that it started later than intended.
        detail: what happened, in the words of the system, safe to print.
    """

    outcome: Outcome
    name: str | None = None
    mixed: bool = False
    connect: float = 0.0
    answer: float = 0.0
    lag: float = 0.0
    detail: str = ""


class FailureError(Exception):
    """A connection ended otherwise than ok.

    Attributes:
        outcome: how.
        detail: what happened, safe to print.
    """

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


_BY_ERRNO = {
    errno.ECONNREFUSED: Outcome.REFUSED,
    errno.ENETUNREACH: Outcome.UNREACHABLE,
    errno.EHOSTUNREACH: Outcome.UNREACHABLE,
    errno.ENETDOWN: Outcome.UNREACHABLE,
    errno.EHOSTDOWN: Outcome.UNREACHABLE,
    errno.ECONNRESET: Outcome.RESET,
    errno.ECONNABORTED: Outcome.RESET,
    errno.EPIPE: Outcome.RESET,
}


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
            # Whatever the kernel refuses for another reason (descriptors,
            # ports, memory, permissions, a family it lacks) is this machine's.
            return FailureError(_BY_ERRNO.get(cause.errno, Outcome.LOCAL), detail)
    return FailureError(Outcome.LOCAL, visible(str(error)) or type(error).__name__)


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
        return f"certificate verify failed: {visible(error.verify_message)}"
    # An error that Python raises by itself, not the library, has no reason.
    return visible(getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
