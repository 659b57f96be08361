"""One exchange: connect, send lines, check each echo byte for byte, say how it ended."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import trio

from trio_echo.prober.config import split_target
from trio_echo.prober.outcome import FailureError, Outcome, Result, classify
from trio_echo.prober.wire import PlainWire, TLSWire, Wire, open_plain, tls_context
from trio_echo.text import printable

if TYPE_CHECKING:
    from trio_echo.prober.config import ProbeConfig
    from trio_echo.prober.wire import Address

__all__ = ["Exchanger"]

_LONGEST_NAME = 4096
"""Bytes of a name that are read before an answer counts as wrong. The server
here has 255; a foreign one may be more talkative, but not without end."""

_SHOWN = 60
"""Bytes of a wrong answer that are worth showing."""


class Exchanger:
    """Makes connections to one address and speaks one exchange over each.

    Args:
        config: what to send, and how long to wait.

    Attributes:
        run: a tag of this run, unique among all; every line carries it.

    Raises:
        ConfigError: a TLS file cannot be used.
    """

    def __init__(self, config: ProbeConfig) -> None:
        self.run = secrets.token_hex(5)
        self._config = config
        host, _ = split_target(config.target)
        self._context = None if config.tls is None else tls_context(config.tls)
        self._server_name = (config.tls and config.tls.server_name) or host
        # In TLS 1.3 the handshake is over before the server looks for the client's
        # certificate, and a server that misses it may just close.
        wanting = config.tls is not None and config.tls.cert is None
        self._silent_end = "no client certificate was shown: does it want one?" if wanting else ""
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
        names = []
        failure = FailureError(Outcome.CONNECT_TIMEOUT, "")
        with trio.move_on_after(self._config.timeout) as scope:
            try:
                wire = await open_plain(address, self._sources[index % len(self._sources)])
                if self._context is not None:
                    failure = FailureError(Outcome.TLS, "no handshake in time")
                    wire = await self._secure(wire)
                connected = sent = trio.current_time()
                failure = FailureError(Outcome.READ_TIMEOUT, "")
                for number in range(self._config.lines):
                    scope.deadline = sent + self._config.timeout
                    names.append(await self._speak(wire, index, number))
                    now = trio.current_time()
                    if not number:
                        answered = now - sent
                    sent = now
                if self._config.half_close:
                    failure = FailureError(Outcome.READ_TIMEOUT, "answered, but no end of file")
                    await self._end(wire)
            except FailureError as error:
                failure = error
            except (OSError, trio.BrokenResourceError) as error:
                failure = classify(error, connected=bool(connected))
            else:
                failure = FailureError(Outcome.OK, "")
            finally:
                if wire is not None:
                    wire.close()
        if failure.outcome is not Outcome.OK:
            return Result(failure.outcome, lag=lag, detail=failure.detail)
        return Result(
            Outcome.OK,
            names[0],
            any(name != names[0] for name in names),
            connected - intended,
            answered,
            lag,
        )

    async def _secure(self, plain: PlainWire) -> TLSWire:
        """Shake hands over a new connection.

        Raises:
            FailureError: the other side ended it without a word of TLS.
        """
        if self._context is None:
            raise AssertionError
        wire = TLSWire(plain.socket, self._context, self._server_name)
        try:
            await wire.handshake()
        except BaseException:
            wire.close()
            raise
        return wire

    async def _end(self, wire: Wire) -> None:
        """Wait for the end of file that answers a half-close.

        Raises:
            FailureError: something else came.
        """
        if rest := await wire.receive():
            raise FailureError(Outcome.WRONG_ECHO, f"after the answers came {_shown(rest)}")

    async def _speak(self, wire: Wire, index: int, number: int) -> str:
        """Send one line and wait for its answer.

        Returns:
            The name in front of the line.

        Raises:
            FailureError: the answer did not come, or was another.
            OSError: the connection broke.
        """
        line = self._line(index, number)
        await wire.send(line)
        if self._config.half_close and number == self._config.lines - 1:
            wire.shutdown()
        answer = await wire.receive()
        while b"\n" not in answer and len(answer) <= _LONGEST_NAME + len(line):
            chunk = await wire.receive() if answer else b""
            if not chunk:
                if answer:
                    raise FailureError(Outcome.EOF_MID_LINE, f"after {_shown(answer)}")
                raise FailureError(Outcome.EOF_BEFORE_ANSWER, self._silent_end)
            answer += chunk
        if answer == line:
            if isinstance(wire, PlainWire) and wire.is_self():
                raise FailureError(Outcome.REFUSED, "connected to itself: nothing listens there")
            return ""
        name = answer[: -len(line) - 1]
        if answer != name + b" " + line or b"\n" in name:
            raise FailureError(Outcome.WRONG_ECHO, f"sent {_shown(line)}, got {_shown(answer)}")
        return name.decode(errors="surrogateescape")

    def _line(self, index: int, number: int) -> bytes:
        """A line that no other connection, line or run has sent."""
        tag = f"{self.run}.{index:x}.{number:x}"
        return tag.ljust(self._config.payload_size or 0, ".").encode() + b"\n"


def _shown(data: bytes) -> str:
    """The beginning of what was on the wire, safe to print."""
    start = data[:_SHOWN].decode(errors="surrogateescape")
    return f"'{printable(start)}'" + ("..." if len(data) > _SHOWN else "")
