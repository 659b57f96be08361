r"""Who answered: what is sent over a connection, and what comes back says.

Pure. Three dialogues tell a backend's name: its echo of a line that nobody else has
sent; a regular expression over what any other server says; its TLS certificate.

A name never depends on how the bytes were cut on their way. The expression is
therefore tried at fixed places alone: behind each LF and each NUL, which end the
lines of text protocols and the texts in binary ones, and at the end of file. The
first of these places at which it matches gives the name.

Its engine is RE2, as in Envoy and Prometheus. Python's own takes minutes for some
expressions over a few kilobytes that a server chooses; RE2's time grows with the
bytes and with the size of the expression, and both are bounded here. RE2 has no
look-around and is shown the same byte behind each such place, so nothing matches there
because the bytes end. What matches at one place thus matches at each later one, and the
first is found by halving.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from trio_echo.errors import ConfigError
from trio_echo.prober.counts import Outcome
from trio_echo.text import printable, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    _Search: TypeAlias = Callable[[bytes, int], bytes | None]

__all__ = [
    "CERTIFICATE_FIELDS",
    "Answer",
    "Certificate",
    "CertificateField",
    "Dialogue",
    "Echo",
    "FailureError",
    "Pattern",
    "PeerCertificate",
    "escape",
    "unescape",
]

MOST_BYTES = 65_536
"""Bytes of an answer that are looked at."""

_LONGEST_NAME = 255
"""Bytes of a name. The server's contract allows no more, and an answer that goes on
is another protocol's."""

_SHOWN = 60
"""Bytes of a wrong answer that are worth showing."""

_LARGEST_PROGRAM = 500
"""Steps of a compiled expression, usual are 20 to 50. RE2 looks at each byte once for
each of them in the worst case: an expression made to be slow took 0.3 s for the most
bytes, where most took 1 ms."""

_MEMORY = 512 * 1024
"""Bytes that an expression may take. The 128 last ones are kept, and the gate's clients
choose them."""

CertificateField = Literal["cn", "san", "serial", "sha256"]
CERTIFICATE_FIELDS: tuple[CertificateField, ...] = get_args(CertificateField)


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


class Answer(Protocol):
    """Takes what comes back after one request."""

    def feed(self, chunk: bytes) -> str | None:
        """Take the next bytes, at least one.

        Returns:
            The name as it came, undecodable bytes as surrogates; None as long as
            more must come.

        Raises:
            FailureError: no answer begins like that.
        """

    def end(self) -> str:
        """Take the end of file before there was a name.

        Returns:
            The name that it completes.

        Raises:
            FailureError: what came is no answer.
        """

    def late(self) -> FailureError:
        """What it means that no more came in time."""


class PeerCertificate(NamedTuple):
    """The certificate that the other side has shown.

    Attributes:
        der: all of it, as it was sent.
        fields: what `ssl.SSLSocket.getpeercert` reads in it; empty where it was not verified.
    """

    der: bytes
    fields: Mapping[str, Any]


class Shown(Protocol):
    """A connection that stands."""

    def certificate(self) -> PeerCertificate:
        """The certificate of the other side; only behind TLS."""


class Dialogue(Protocol):
    """How a backend is made to say its name.

    Attributes:
        repeats: whether it can be asked again on the same connection.
        strict: whether bytes that nobody asked for are wrong.
    """

    repeats: bool
    strict: bool

    def known(self, connection: Shown) -> str | None:
        """The name that a connection tells by itself; None where one has to ask.

        Raises:
            FailureError: it should tell it, and does not.
        """

    def request(self, index: int, number: int) -> bytes:
        """What to send as request `number` of connection `index`; empty for nothing."""

    def answer(self, request: bytes) -> Answer:
        """Take the answer to a request."""


class Echo:
    """The dialogue with an echo server that puts its name in front of each line.

    Args:
        run: a tag that no other run has.
        payload_size: bytes of each line before LF; None for as few as it takes.
    """

    repeats = True
    strict = True

    def __init__(self, run: str, payload_size: int | None) -> None:
        self._run = run
        self._size = payload_size or 0

    def known(self, _connection: Shown) -> None:
        """Only the echo tells it."""

    def request(self, index: int, number: int) -> bytes:
        """Line `number` of connection `index`, which no other one has sent."""
        tag = f"{self._run}.{index:x}.{number:x}"
        return tag.ljust(self._size, ".").encode() + b"\n"

    def answer(self, request: bytes) -> Answer:
        """Take the echo of a line: the line itself, byte for byte, behind a name and a space."""
        return _EchoAnswer(request)


class _EchoAnswer:
    """Takes the echo of one line. A line alone is a plain echo, with an empty name."""

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._came = b""

    def feed(self, chunk: bytes) -> str | None:
        self._came += chunk
        came, line = self._came, self._line
        if b"\n" not in came and len(came) <= _LONGEST_NAME + len(line):
            return None
        if came == line:
            return ""
        name = came[: -len(line) - 1]
        if came != name + b" " + line or b"\n" in name or len(name) > _LONGEST_NAME:
            raise FailureError(Outcome.WRONG_ECHO, f"sent {shown(line)}, got {shown(came)}")
        return name.decode(errors="surrogateescape")

    def end(self) -> str:
        if self._came:
            raise FailureError(Outcome.EOF_MID_LINE, f"after {shown(self._came)}")
        raise FailureError(Outcome.EOF_BEFORE_ANSWER, "")

    def late(self) -> FailureError:
        return FailureError(Outcome.READ_TIMEOUT, "")


class Pattern:
    """The dialogue with any server: one request, and an expression over what comes back.

    ``^`` and ``$`` in it are the beginning and the end of a line.

    Args:
        send: the request; empty where the server speaks first.
        identify: in RE2's syntax, over bytes; what its first group matches is the name.

    Raises:
        ConfigError: names ``identify``; it is no such expression, or RE2 is not installed.
    """

    strict = False

    def __init__(self, send: bytes, identify: str) -> None:
        self._send = send
        self._search = _compile(identify)
        self.repeats = bool(send)

    def known(self, _connection: Shown) -> None:
        """Only what comes tells it."""

    def request(self, _index: int, _number: int) -> bytes:
        """The same every time."""
        return self._send

    def answer(self, request: bytes) -> Answer:
        """Take what comes, up to a number of bytes."""
        return _PatternAnswer(self._search, asked=bool(request))


class _PatternAnswer:
    """Looks for the first place at which the expression matches what came until there."""

    def __init__(self, search: _Search, *, asked: bool) -> None:
        self._search = search
        self._asked = asked
        self._came = b""

    def feed(self, chunk: bytes) -> str | None:
        start = len(self._came)
        self._came += chunk[: MOST_BYTES - start]
        places = [found.end() for found in _ENDS.finditer(self._came, start)]
        if places and self._until(places[-1]) is not None:
            first = bisect_left(places, True, key=lambda place: self._until(place) is not None)
            return _name(self._until(places[first]))
        if len(self._came) == MOST_BYTES:
            raise self._missed(", and no more are looked at")
        return None

    def _until(self, place: int) -> bytes | None:
        return self._search(self._came[:place] + _MORE, place)

    def end(self) -> str:
        if not self._came:
            raise FailureError(Outcome.EOF_BEFORE_ANSWER, "")
        found = self._search(self._came, len(self._came))
        if found is None:
            raise self._missed(", then the end")
        return _name(found)

    def late(self) -> FailureError:
        if not self._came:
            silent = "" if self._asked else "nothing was sent, and the server did not speak first"
            return FailureError(Outcome.READ_TIMEOUT, silent)
        unfinished = ", the last line unfinished" if self._came[-1] not in b"\n\0" else ""
        return self._missed(unfinished)

    def _missed(self, then: str) -> FailureError:
        many = f"{len(self._came)} byte{'s' * (len(self._came) != 1)}"
        detail = f"no match for --identify in {many}{then}: {shown(self._came)}"
        return FailureError(Outcome.NO_MATCH, detail)


_ENDS = re.compile(rb"[\n\0]")

_MORE = b"\xff"
"""Stands for what has not come yet, which is neither a letter nor the end of a line."""


def _name(found: bytes | None) -> str:
    """The name that a group matched, as it came.

    Raises:
        FailureError: it is longer than any name.
    """
    name = found or b""
    if len(name) > _LONGEST_NAME:
        detail = f"--identify gives a name of {len(name)} bytes: {shown(name)}"
        raise FailureError(Outcome.NO_MATCH, detail)
    return name.decode(errors="surrogateescape")


class Certificate:
    """The dialogue with a service that says nothing before a login: its certificate names it.

    Args:
        field: which part of it is the name: ``cn``, the subject's last common name;
            ``san``, all alternative names of the subject, joined by commas; ``serial``
            and ``sha256``, both in hexadecimal, the latter of the whole certificate.
    """

    repeats = False
    strict = False

    def __init__(self, field: CertificateField) -> None:
        self._field = field

    def known(self, connection: Shown) -> str:
        """The name in the certificate."""
        der, fields = connection.certificate()
        name = _CERTIFICATE_NAMES[self._field](der, fields)
        if not name:
            detail = f"the certificate has no {self._field}: use serial or sha256"
            raise FailureError(Outcome.NO_MATCH, detail)
        size = len(name.encode(errors="surrogateescape"))
        if size > _LONGEST_NAME:
            detail = f"the certificate's {self._field} is {size} bytes long: use serial or sha256"
            raise FailureError(Outcome.NO_MATCH, detail)
        return name

    def request(self, _index: int, _number: int) -> bytes:
        """Nothing is asked."""
        raise AssertionError

    def answer(self, _request: bytes) -> Answer:
        """Nothing is asked."""
        raise AssertionError


def _common_name(_der: bytes, fields: Mapping[str, Any]) -> str:
    found = [value for part in fields["subject"] for key, value in part if key == "commonName"]
    return str(found[-1]) if found else ""


def _alternative_names(_der: bytes, fields: Mapping[str, Any]) -> str:
    return ",".join(str(value) for _, value in fields.get("subjectAltName", ()))


_CERTIFICATE_NAMES: Mapping[CertificateField, Callable[[bytes, Mapping[str, Any]], str]] = {
    "cn": _common_name,
    "san": _alternative_names,
    "serial": lambda _der, fields: str(fields["serialNumber"]),
    "sha256": lambda der, _fields: sha256(der).hexdigest(),
}


def _compile(identify: str) -> _Search:
    """Make a function of bytes and a place: what the first group matches in those before it.

    It gives None for no match, and no bytes where the group has no part in the match.

    Raises:
        ConfigError: names ``identify``.
    """
    try:
        re2: Any = import_module("re2")  # an extra, and it has no types
    except ModuleNotFoundError:
        reason = "needs google-re2, which is not installed: pip install google-re2"
        raise ConfigError("identify", reason) from None
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # a byte is a character
    options.log_errors = False
    options.max_mem = _MEMORY
    got = f"got '{visible(identify)}'"
    if r"\B" in identify:
        raise ConfigError("identify", rf"must not have \B, which hangs on what has not come, {got}")
    try:
        pattern = re2.compile(b"(?m)" + _encoded("identify", identify), options)
    except re2.error as error:
        why = error.args[0].decode(errors="replace").partition(": ")[0]
        raise ConfigError("identify", f"is no expression of RE2: {printable(why)}, {got}") from None
    if not pattern.groups:
        reason = f"must have a group around the name, such as version:(\\S+), {got}"
        raise ConfigError("identify", reason)
    if pattern.programsize > _LARGEST_PROGRAM:
        reason = f"is too large, {pattern.programsize} steps of {_LARGEST_PROGRAM}: shorten it"
        raise ConfigError("identify", reason)

    def search(came: bytes, place: int) -> bytes | None:
        found = pattern.search(came, 0, place)
        return None if found is None else found.group(1) or b""

    return search


_SHORT = {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)


def unescape(text: str) -> bytes:
    r"""Read what ``--send`` is given: text, with ``\r``, ``\n``, ``\t``, ``\0``, ``\\``, ``\xNN``.

    Raises:
        ConfigError: names ``send``; a backslash is followed by something else.
    """
    data = bytearray()
    end = 0
    for found in _ESCAPE.finditer(text):
        data += _encoded("send", text[end : found.start()])
        end = found.end()
        code = found[1]
        if code in _SHORT:
            data += _SHORT[code]
        elif len(code) > 1:
            data.append(int(code[1:], 16))
        else:
            got = visible(text[found.start() : end])
            raise ConfigError("send", rf"must have \r \n \t \0 \\ \xNN alone, got '{got}'")
    return bytes(data + _encoded("send", text[end:]))


def _encoded(field: str, text: str) -> bytes:
    """A setting as bytes: UTF-8, and what was none as it came.

    Raises:
        ConfigError: it holds half a character, as JSON allows.
    """
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise ConfigError(field, f"holds half a character: '{visible(text)}'") from None


def escape(data: bytes) -> str:
    """Write bytes in ASCII so that `unescape` reads them."""
    names = {value[0]: rf"\{name}" for name, value in _SHORT.items()}
    return "".join(
        names.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else rf"\x{byte:02x}")  # noqa: PLR2004 - the ends of ASCII
        for byte in data
    )


def shown(data: bytes) -> str:
    """The beginning of what was on the wire, safe to print."""
    start = data[:_SHOWN].decode(errors="surrogateescape")
    return f"'{printable(start)}'" + ("..." if len(data) > _SHOWN else "")
