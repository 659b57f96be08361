r"""The wire contract, pure: bytes in, prefixed bytes out.

Every complete line is answered by ``PREFIX``, one space and the line itself,
byte for byte. What is sent is a function of the bytes received and never of
how the network cut them into segments; ``tests/test_framing.py`` holds that
against a naive reference model.

    >>> framer = Framer(encode_prefix("hello"))
    >>> framer.feed(b"one\ntw")
    b'hello one\n'
    >>> framer.feed(b"o\n")
    b'hello two\n'
    >>> framer.feed(b"rest"), framer.end()
    (b'', b'hello rest')
"""

from __future__ import annotations

import unicodedata

from trio_echo.errors import ConfigError, TrioEchoError

__all__ = [
    "DEFAULT_MAX_LINE",
    "MAX_ANSWER",
    "MAX_PREFIX",
    "Framer",
    "LineTooLongError",
    "encode_prefix",
]

DEFAULT_MAX_LINE = 65_536
"""The longest line that is answered unless told otherwise, in bytes before LF."""

MAX_PREFIX = 255
"""The longest prefix, in bytes of UTF-8."""

MAX_ANSWER = 256 * 1024
"""What one chunk of at most `Framer.chunk_size` bytes may grow to, in bytes,
not counting a line that was carried over from earlier chunks."""

_LF = 0x0A

_MAX_CHUNK = 64 * 1024
"""The largest chunk worth receiving at once, in bytes. Larger ones gain no
speed (a copy costs the same per byte) and cost memory per busy connection."""


class LineTooLongError(TrioEchoError):
    """The client sent a line longer than the limit; the conversation is over.

    Attributes:
        answer: the last bytes to send, the answers to the complete lines
            before it and then the error line that the wire contract promises.
    """

    def __init__(self, limit: int, answers: bytes) -> None:
        super().__init__(f"line longer than {limit} bytes")
        self.answer = answers + f"error: {self}\n".encode()


def encode_prefix(prefix: str) -> bytes:
    """Turn a prefix as the user typed it into the bytes before each line.

    Args:
        prefix: the name of the backend; empty echoes plainly.

    Returns:
        The prefix in UTF-8 and one space, or nothing for an empty prefix.

    Raises:
        ConfigError: it is longer than `MAX_PREFIX` bytes, has a control
            character, or cannot be encoded.
    """
    for character in prefix:
        if unicodedata.category(character) == "Cc":
            message = f"must not contain control characters, found {character!r}"
            raise ConfigError("prefix", message)
    try:
        encoded = prefix.encode()
    except UnicodeEncodeError:
        raise ConfigError("prefix", "must be valid UTF-8") from None
    if len(encoded) > MAX_PREFIX:
        message = f"must be at most {MAX_PREFIX} bytes of UTF-8, not {len(encoded)}"
        raise ConfigError("prefix", message)
    return encoded + b" " if encoded else b""


class Framer:
    """One connection's conversation, from its first byte to its last.

    Args:
        prefix: the bytes before each line, from `encode_prefix`.
        max_line: the longest line that is answered, in bytes before LF.

    Attributes:
        chunk_size: the largest chunk to feed at once, in bytes. One LF grows
            to a whole prefix, so a longer prefix takes smaller chunks; an
            answer then stays under `MAX_ANSWER` whatever the client sends.
        lines: how many lines were answered so far, an unterminated rest at the
            end included.
    """

    __slots__ = ("_carry", "_over", "_prefix", "_separator", "chunk_size", "lines", "max_line")

    def __init__(self, prefix: bytes, max_line: int = DEFAULT_MAX_LINE) -> None:
        self._prefix = prefix
        self._separator = b"\n" + prefix
        # The line that is not complete yet. No LF is ever in here, so nothing
        # in it is scanned twice; None while there is none, since an empty
        # bytearray on each of thousands of idle connections would be memory.
        self._carry: bytearray | None = None
        self._over = False
        self.max_line = max_line
        self.chunk_size = min(_MAX_CHUNK, MAX_ANSWER // (len(prefix) + 1))
        self.lines = 0

    @property
    def partial(self) -> bool:
        """Whether a line has begun and its LF has not come yet."""
        return self._carry is not None

    @property
    def carried(self) -> int:
        """Bytes of that line so far."""
        return 0 if self._carry is None else len(self._carry)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes from the client, and answer the lines they complete.

        Args:
            chunk: any number of bytes, cut anywhere.

        Returns:
            The answers to the lines that are complete now, in order; often
            nothing. After a `LineTooLongError`, always nothing.

        Raises:
            LineTooLongError: a line is longer than `max_line`, whether its LF
                has come or not.
        """
        # This runs once per chunk received and is most of what the server
        # itself does. Whole lines and nothing carried is the usual case.
        if self._over or not chunk:
            return b""
        if self._carry is None and chunk[-1] == _LF and len(chunk) <= self.max_line:
            return self._answer(chunk)
        carry = self._carry
        carried = 0 if carry is None else len(carry)
        if carried + len(chunk) > self.max_line:
            self._check_limit(chunk, carried)
        end = chunk.rfind(b"\n") + 1
        if end != len(chunk):
            rest = chunk[end:]
            if end == 0 and carry is not None:
                # Appending costs the length of the chunk; joining bytes would
                # cost the length of the line, for each of its single bytes.
                carry += rest
                return b""
            self._carry = bytearray(rest)
            if end == 0:
                return b""
            chunk = chunk[:end]
        else:
            self._carry = None
        if carry:
            carry += chunk
            chunk = bytes(carry)
        return self._answer(chunk)

    def end(self) -> bytes:
        """Take the client's end of file, and answer an unterminated rest.

        Returns:
            The prefix and the rest, no LF added; nothing where the last line
            was complete.
        """
        rest, self._carry = self._carry, None
        if self._over or not rest:
            return b""
        self.lines += 1
        return self._prefix + bytes(rest)

    def _answer(self, lines: bytes) -> bytes:
        """Prefix each of one or more complete lines."""
        if lines.find(b"\n") == len(lines) - 1:
            self.lines += 1
            return self._prefix + lines
        # The last LF has no line behind it and must not grow a prefix.
        answer = self._prefix + lines[:-1].replace(b"\n", self._separator) + b"\n"
        # Every line has grown by a prefix, which tells how many there are. To
        # count their LFs would take a third of the time again.
        if self._prefix:
            self.lines += (len(answer) - len(lines)) // len(self._prefix)
        else:
            self.lines += lines.count(b"\n")
        return answer

    def _check_limit(self, chunk: bytes, carried: int) -> None:
        """Raise if a line in the carried bytes and `chunk` is too long.

        Only called when they are longer than the limit together, so the walk
        from line to line is rare unless the limit is tiny.
        """
        start = 0
        while True:
            end = chunk.find(b"\n", start)
            if carried + (len(chunk) if end < 0 else end) - start > self.max_line:
                before = bytes(self._carry or b"") + chunk[:start] if start else b""
                answers = self._answer(before) if before else b""
                self._over = True
                self._carry = None
                raise LineTooLongError(self.max_line, answers)
            if end < 0:
                return
            start = end + 1
            carried = 0
