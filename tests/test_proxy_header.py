"""The PROXY protocol's header: what is written is read, and nothing else passes for one."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import IPv6Address, ip_address
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_echo.proxy_header import Address, Header, read, write

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

VERSIONS: st.SearchStrategy[Literal["v1", "v2"]] = st.sampled_from(["v1", "v2"])
PORTS = st.integers(0, 65_535)
ADDRESSES = st.tuples(st.ip_addresses().map(str), PORTS)
V1_WORDS = st.sampled_from(
    [
        "PROXY",
        "TCP4",
        "TCP6",
        "UNKNOWN",
        " ",
        "1.2.3.4",
        "01.2.3.4",
        "::1",
        "::ffff:1.2.3.4",
        "fe80::1%1",
        "80",
        "080",
        "+80",
        "8_0",
        "٣",
        "65536",
        "\r\n",
        "\n",
        "\r",
        "x",
    ]
)
GARBAGE = (
    st.binary(max_size=200)
    | st.lists(V1_WORDS, max_size=14).map(lambda words: ("PROXY " + "".join(words)).encode())
    | st.binary(max_size=60).map(SIGNATURE.__add__)
    | st.tuples(st.binary(min_size=2, max_size=2), st.binary(max_size=60)).map(
        lambda parts: SIGNATURE + parts[0] + struct.pack("!H", len(parts[1])) + parts[1]
    )
)


def v2(command: int, kind: int, block: bytes) -> bytes:
    """A header of version 2, right or wrong."""
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block)) + block


def read_or_fail(data: bytes) -> Header | str | None:
    """What `read` returns, or the word for its error."""
    try:
        return read(data)
    except ValueError:
        return "error"


def plain(address: Address) -> Address:
    """An address as a header's reader gives it: IPv4 inside IPv6 as IPv4."""
    host = ip_address(address[0])
    inner = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return str(inner or host), address[1]


@given(VERSIONS, ADDRESSES, ADDRESSES, st.binary(max_size=20))
def test_what_is_written_is_read(
    version: Literal["v1", "v2"], source: Address, destination: Address, behind: bytes
) -> None:
    """With whatever comes behind it."""
    header = write(version, source, destination)
    expected = Header(plain(source), plain(destination), len(header))
    assert read(header + behind) == expected
    assert len(header) <= 107


@given(VERSIONS, st.sampled_from([(None, None), (("::1", 1), None), (None, ("::1", 1))]))
def test_a_connection_of_the_senders_own_has_no_addresses(
    version: Literal["v1", "v2"], addresses: tuple[Address | None, Address | None]
) -> None:
    """Then the connection's own count."""
    header = write(version, *addresses)
    assert read(header) == Header(None, None, len(header))


@given(GARBAGE | st.builds(lambda *of: write(*of) + b"\nPROXY", VERSIONS, ADDRESSES, ADDRESSES))
def test_a_cut_changes_nothing(data: bytes) -> None:
    """At every byte: first more must come, and then what is said stays said."""
    said = [read_or_fail(data[:size]) for size in range(len(data) + 1)]
    first = next((each for each in said if each is not None), None)
    begun = said.index(first)
    assert said == [None] * begun + [first] * (len(said) - begun)
    if isinstance(first, Header):
        assert first.size == begun, "it is known with its last byte"


@given(GARBAGE)
def test_garbage_raises_nothing_else_and_is_waited_for_within_bounds(data: bytes) -> None:
    """Also as a bytearray, which a reader may collect in."""
    with contextlib.suppress(ValueError):
        assert read(bytearray(data)) is None or len(data) >= 15
    assert read_or_fail(b"PROXY " + data[:20].replace(b"\n", b"") + b"x" * 107) == "error"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\n", (("1.2.3.4", 0), ("5.6.7.8", 65_535))),
        (b"PROXY TCP6 FE80::1 ::ffff:5.6.7.8 1 2\r\n", (("fe80::1", 1), ("5.6.7.8", 2))),
        (b"PROXY UNKNOWN\r\n", (None, None)),
        (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", (None, None)),
        (v2(0x20, 0x00, b""), (None, None)),
        (v2(0x20, 0xFF, b"\xff" * 65_535), (None, None)),
        (v2(0x21, 0x00, b"\x04\0\1\0"), (None, None)),
        (v2(0x21, 0x11, b"\1\2\3\4\5\6\7\x08\0\1\0\2"), (("1.2.3.4", 1), ("5.6.7.8", 2))),
        (v2(0x21, 0x11, b"\1\2\3\4\5\6\7\x08\0\1\0\2\3\0\0"), (("1.2.3.4", 1), ("5.6.7.8", 2))),
        (v2(0x21, 0x12, b"\1\2\3\4\5\6\7\x08\0\1\0\2"), (None, None)),
        (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") * 2), (None, None)),
    ],
)
def test_what_the_protocol_allows(
    data: bytes, expected: tuple[Address | None, Address | None]
) -> None:
    """Both versions; what is behind the addresses is skipped."""
    assert read(data + b"more") == Header(*expected, size=len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"hello\n",
        b"PROXX",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
        SIGNATURE + b"\x11",
        SIGNATURE + b"\x22",
        v2(0x21, 0x41, b""),
        v2(0x21, 0x13, b""),
        v2(0x21, 0x11, b"\0" * 11),
        v2(0x21, 0x21, b"\0" * 35),
    ],
)
def test_what_the_protocol_forbids(data: bytes) -> None:
    """No guessing: else anybody could give an address of their choice."""
    with pytest.raises(ValueError, match=r"PROXY|octets"):
        read(data)


def test_an_address_that_no_header_can_carry() -> None:
    """Nothing is sent then; the scope of a link-local address says nothing elsewhere."""
    with pytest.raises(ValueError, match="port"):
        write("v1", ("::1", 65_536), ("::1", 1))
    with pytest.raises(ValueError, match=r"example\.org"):
        write("v2", ("example.org", 1), ("::1", 1))
    linked = write("v1", ("fe80::1%eth0", 1), ("127.0.0.1", 2))
    assert linked == write("v1", ("fe80::1", 1), ("::ffff:127.0.0.1", 2))
    assert read(linked) == Header(("fe80::1", 1), ("127.0.0.1", 2), len(linked))
