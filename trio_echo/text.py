r"""Pure: the one place that makes foreign text safe to show, and that writes addresses.

Foreign text (a backend's name, a manifest's value, what a client sent) is kept
as it came; bytes are decoded with ``errors="surrogateescape"``. It is made safe
once, where it leaves: with `printable` for people, with `xml_text` for XML.
`visible` is the net behind them, for whole lines on their way to a terminal.

An unsafe character has one form, after the manner of Python's own literals:

* LF, CR and TAB: ``\n``, ``\r``, ``\t``
* other ASCII controls: ``\x1b``
* a byte that was no UTF-8 (the lone surrogates U+DC80 to U+DCFF): ``\xff``
* all others: ``\u0085``, ``\U000e0001``

GitHub's runner takes orders from what a step prints: `harmless` is for there.
"""

from __future__ import annotations

import re

__all__ = ["format_address", "harmless", "printable", "visible", "xml_text"]

_INVISIBLE = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef"
)
"""Characters that `str.isprintable` lets pass although nobody can see them:
Unicode's default ignorable ones, and the empty Braille pattern."""

_DOUBTFUL = re.compile(rf"[^ -~\u00a1-\u02ff]|[\u00ad{_INVISIBLE}]")
"""What needs a second look; the rest is printable."""

_UNSEEN = re.compile(f"[{_INVISIBLE}]")

_XML_ILLEGAL = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot carry in any form (its production 2, Char), and CR, which
every XML reader turns into LF."""

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str) -> str:
    """Write foreign text as one line that can do nothing to a terminal.

    No two texts are written alike: a backslash is doubled. So apply it once.
    Controls, invisible and bidirectional characters, line separators, unusual
    spaces and lone surrogates are written in their forms (see the module).
    """
    return visible(text.replace("\\", r"\\"))


def visible(line: str) -> str:
    """Write a line whose foreign parts are `printable` already, safely in any case.

    As `printable`, but a backslash stays as it is: to apply it again changes
    nothing, and two texts may be written alike.
    """
    return _DOUBTFUL.sub(_judge, line)


def xml_text(text: str) -> str:
    """Write text so that XML 1.0 can carry it, as text or as the value of an attribute.

    Characters that XML cannot carry are written in their forms (see the
    module). Markup such as ``<`` stays: an XML writer escapes it. To apply it
    again changes nothing.
    """
    return _XML_ILLEGAL.sub(_form, text)


_COMMAND = re.compile(r"(?:^|(?<=[\r\n]))([^\S\r\n]*):(?=:)|(?<=##)\[")
"""Where the runner finds a command: ``::`` in front of a line, which a lone CR ends too,
``##[`` anywhere in it (``ActionCommand.cs`` of actions/runner)."""

_FORMS = {"text": "\\x{:02x}", "json": "\\u{:04x}", "xml": "&#{};"}


def harmless(text: str, form: str = "text") -> str:
    """Write text so that GitHub's runner, which reads all that a step prints, obeys none of it.

    Args:
        text: lines, or a whole document.
        form: ``text``, ``json`` or ``xml``: how a character is written in another way.
            A document says the same after it.
    """

    def write(match: re.Match[str]) -> str:
        return (match[1] or "") + _FORMS[form].format(ord(match[0][-1]))

    return _COMMAND.sub(write, text)


def format_address(host: str, port: int) -> str:
    """Write an address as in a URL: ``127.0.0.1:9000``, ``[fe80::1%eth0]:9000``.

    An IPv4 address inside an IPv6 one, which is how a dual-stack socket shows
    its IPv4 clients, is written as IPv4.
    """
    inner = host.removeprefix("::ffff:")
    if "." in inner and ":" not in inner:
        host = inner
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _judge(match: re.Match[str]) -> str:
    """The character itself, where it can be seen and does nothing."""
    character = match[0]
    if character.isprintable() and not _UNSEEN.match(character):
        return character
    return _form(match)


def _form(match: re.Match[str]) -> str:
    """The form of an unsafe character."""
    character = match[0]
    point = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= point <= 0xDCFF:  # noqa: PLR2004 - PEP 383's place for a byte
        return f"\\x{point - 0xDC00:02x}"
    if character.isascii():
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"  # noqa: PLR2004 - four digits' worth
