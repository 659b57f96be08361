"""What the server's logs need: text that is safe to show, and a bounded rate.

Every event is a short constant; what happened to whom is in its fields, and
what came from a client passes `printable` first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trio_echo.framing import Framer, LineTooLongError
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_echo.log import Log

__all__ = ["LoggedFramer", "Throttle"]


def _shown(data: bytes) -> str:
    """What a client sent, or was sent, safe to show."""
    return printable(data.decode(errors="surrogateescape"))


class LoggedFramer(Framer):
    """A framer that logs each request and its response, escaped.

    Args:
        log: where to, with the client's address bound as ``peer``.
        prefix: the bytes before each line, from `encode_prefix`.
        max_line: the longest line that is answered, in bytes before LF.
    """

    __slots__ = ("_log",)

    def __init__(self, log: Log, prefix: bytes, max_line: int) -> None:
        super().__init__(prefix, max_line)
        self._log = log

    def feed(self, chunk: bytes) -> bytes:
        """Answer as every framer does, and log."""
        try:
            answers = super().feed(chunk)
        except LineTooLongError as error:
            *answered, told, _ = error.answer.split(b"\n")
            self._exchanged(answered)
            self._log.info("response", line=_shown(told))
            raise
        self._exchanged(answers.split(b"\n")[:-1])
        return answers

    def end(self) -> bytes:
        """Answer the rest as every framer does, and log."""
        answer = super().end()
        self._exchanged([answer] if answer else [])
        return answer

    def _exchanged(self, responses: Iterable[bytes]) -> None:
        """Log responses, and the requests that are in them."""
        for response in responses:
            self._log.info("request", line=_shown(response[len(self._prefix) :]))
            self._log.info("response", line=_shown(response))


@dataclass(slots=True)
class _Window:
    """What was said of one event since the window opened."""

    end: float
    said: int = 0
    suppressed: int = 0


class Throttle:
    """Warnings at a bounded rate, however many bad clients there are.

    Each event, a constant of the code, has a window of its own, so that a
    storm of one kind does not hide another.

    Args:
        log: where the warnings go.
        burst: how many of one event are logged in a window; the rest is counted.
        period: the length of a window in seconds.
    """

    def __init__(self, log: Log, *, burst: int = 10, period: float = 10.0) -> None:
        self._log = log
        self._burst = burst
        self._period = period
        self._windows: dict[str, _Window] = {}

    def warning(self, event: str, **fields: object) -> None:
        """Log a warning, or count it as suppressed."""
        self.settle()
        window = self._windows.get(event)
        if window is None:
            window = self._windows[event] = _Window(trio.current_time() + self._period)
        if window.said < self._burst:
            window.said += 1
            self._log.warning(event, **fields)
        else:
            window.suppressed += 1

    def settle(self, *, final: bool = False) -> None:
        """Say how many were suppressed, for each window that is over.

        Call it now and then, or the end of a storm is only told with the next
        warning.

        Args:
            final: every window is over; for the end of the server.
        """
        now = trio.current_time()
        for event, window in list(self._windows.items()):
            if final or now >= window.end:
                del self._windows[event]
                if window.suppressed:
                    self._log.warning("suppressed", count=window.suppressed, warning=event)
