"""Foreign text does nothing where it is shown, and nothing of it is lost."""

from __future__ import annotations

import re
import unicodedata
from xml.etree import ElementTree as ET

import pytest
from hostile import hostile_text
from hypothesis import example, given
from hypothesis import strategies as st

from trio_echo.text import format_address, printable, visible, xml_text

_FORM = re.compile(r"\\(?:\\|n|r|t|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})|[^\\]")
_SHORT = {r"\\": "\\", r"\n": "\n", r"\r": "\r", r"\t": "\t"}


def restored(shown: str) -> str:
    """Undo `printable`, by its documentation."""
    forms = _FORM.findall(shown)
    assert "".join(forms) == shown
    return "".join(map(_restored, forms))


def _restored(form: str) -> str:
    if len(form) == 1:
        return form
    if form in _SHORT:
        return _SHORT[form]
    point = int("0x" + form[2:], 0)
    return chr(point + 0xDC00 if form[1] == "x" and point >= 0x80 else point)


@given(hostile_text() | st.text())
@example("\x1b[2J\x1b]0;title\x07")
@example("\x85\x9b31m\udc85\udcff\ud800")
@example("\u202e\u2028\u200b\u00ad\ufeff\u3164\ufe0f\U000e0001\U000e0100")
@example(r"\x1b \n \\")
def test_printable_is_one_safe_line_and_nothing_is_lost(text: str) -> None:
    """It can be undone, so two different texts never look alike."""
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()  # holds no lone surrogate
    assert restored(shown) == text
    assert visible(shown) == shown


@given(hostile_text() | st.text())
def test_visible_can_be_applied_again(text: str) -> None:
    """It is as safe as printable, and leaves what is safe alone."""
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    assert visible(printable(text)) == printable(text)


@given(hostile_text() | st.text())
def test_xml_carries_any_text(text: str) -> None:
    """As text and as an attribute: what was written is what a reader gets."""
    safe = xml_text(text)
    assert xml_text(safe) == safe
    element = ET.Element("name", value=safe)
    element.text = safe
    read = ET.fromstring(ET.tostring(element, encoding="unicode"))  # noqa: S314 - written above
    assert (read.text or "") == safe
    assert read.get("value") == safe


@given(st.binary())
def test_bytes_can_be_had_back(data: bytes) -> None:
    """Also those that are no UTF-8."""
    shown = printable(data.decode(errors="surrogateescape"))
    assert restored(shown).encode(errors="surrogateescape") == data


def test_text_that_can_be_seen_stays() -> None:
    """In every script; only what cannot be seen is spelled out."""
    assert printable("grüße, 世界 \N{WAVING HAND SIGN}") == "grüße, 世界 \N{WAVING HAND SIGN}"
    assert printable("a\r\n\t\\\0\x7f\x85\udcff") == r"a\r\n\t\\\x00\x7f\u0085\xff"


@pytest.mark.parametrize("category", ["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
def test_no_character_of_a_kind_that_terminals_obey_passes(category: str) -> None:
    """All of Unicode, whatever ranges the code names."""
    for point in range(0x110000):
        character = chr(point)
        if unicodedata.category(character) == category:
            assert visible(character) != character, hex(point)


@pytest.mark.parametrize(
    ("host", "written"),
    [
        ("127.0.0.1", "127.0.0.1:9000"),
        ("::1", "[::1]:9000"),
        ("fe80::1%eth0", "[fe80::1%eth0]:9000"),
        ("::ffff:127.0.0.1", "127.0.0.1:9000"),
        ("::ffff:0:1", "[::ffff:0:1]:9000"),
        ("echo.example", "echo.example:9000"),
    ],
)
def test_an_address_is_written_as_in_a_url(host: str, written: str) -> None:
    """Brackets keep the port apart from an IPv6 address."""
    assert format_address(host, 9000) == written
