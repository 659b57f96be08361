"""Who answered: what is sent over a connection, and what the bytes that come back say.

Pure: bytes in, a name out. The dialogue with an echo server sends lines that
nobody else has sent, and takes an answer only if it is the line itself, byte for
byte, behind a name and a space.
"""

from __future__ import annotations

from trio_echo.prober.counts import Outcome
from trio_echo.text import printable

__all__ = ["Echo", "FailureError"]

_LONGEST_NAME = 255
"""Bytes of a name. The server's contract allows no more, and an answer that goes on
is another protocol's."""

_SHOWN = 60
"""Bytes of a wrong answer that are worth showing."""


class FailureError(Exception):
    """A connection ended otherwise than ok.

    Attributes:
        outcome: how.
        detail: what happened; foreign text in it is safe to print.
    """

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Echo:
    """The dialogue with an echo server that puts its name in front of each line.

    Args:
        run: a tag that no other run has.
        payload_size: bytes of each line before LF; None for as few as it takes.
    """

    def __init__(self, run: str, payload_size: int | None) -> None:
        self._run = run
        self._size = payload_size or 0

    def line(self, index: int, number: int) -> bytes:
        """Line `number` of connection `index`, which no other one has sent."""
        tag = f"{self._run}.{index:x}.{number:x}"
        return tag.ljust(self._size, ".").encode() + b"\n"

    def read(self, line: bytes, came: bytes) -> str | None:
        """Find the name in what came after `line` was sent.

        Returns:
            The name as it came, undecodable bytes as surrogates; empty for a plain
            echo, None as long as more must come.

        Raises:
            FailureError: it is no answer to this line.
        """
        if b"\n" not in came and len(came) <= _LONGEST_NAME + len(line):
            return None
        if came == line:
            return ""
        name = came[: -len(line) - 1]
        if came != name + b" " + line or b"\n" in name or len(name) > _LONGEST_NAME:
            raise FailureError(Outcome.WRONG_ECHO, f"sent {shown(line)}, got {shown(came)}")
        return name.decode(errors="surrogateescape")

    def ended(self, came: bytes) -> FailureError:
        """What it means that nothing comes after `came`, which is no whole answer."""
        if came:
            return FailureError(Outcome.EOF_MID_LINE, f"after {shown(came)}")
        return FailureError(Outcome.EOF_BEFORE_ANSWER, "")

    def after(self, rest: bytes) -> FailureError:
        """What it means that `rest` came after the last answer."""
        return FailureError(Outcome.WRONG_ECHO, f"after the answers came {shown(rest)}")


def shown(data: bytes) -> str:
    """The beginning of what was on the wire, safe to print."""
    start = data[:_SHOWN].decode(errors="surrogateescape")
    return f"'{printable(start)}'" + ("..." if len(data) > _SHOWN else "")
