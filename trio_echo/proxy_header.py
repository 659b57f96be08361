r"""The PROXY protocol's header, pure: a proxy's first bytes, which name its client.

Versions 1 and 2, as HAProxy's ``proxy-protocol.txt`` has them, for TCP.

    >>> write("v1", ("192.0.2.1", 5000), ("192.0.2.2", 9000))
    b'PROXY TCP4 192.0.2.1 192.0.2.2 5000 9000\r\n'
    >>> read(b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 9000\r\nhello\n")
    Header(source=('192.0.2.1', 5000), destination=('192.0.2.2', 9000), size=42)
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Address", "Header", "read", "write"]

Address: TypeAlias = tuple[str, int]
"""A numeric host, and a port."""

_Host: TypeAlias = "IPv4Address | IPv6Address"

_V1: Final = b"PROXY "
_LONGEST_V1: Final = 107
"""Bytes of the longest line of version 1, its CRLF included."""

_PORT: Final = re.compile("0|[1-9][0-9]{0,4}")
_MAX_PORT: Final = 65_535

_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED: Final = len(_V2) + 4
"""Bytes of version 2 before the addresses: the last two say how many come behind them."""

_LOCAL, _PROXY = 0x20, 0x21  # the version, and the command
_TCP4, _TCP6 = 0x11, 0x21  # the family, and the transport
_ADDRESSES: Final = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}
_MAX_FAMILY, _MAX_TRANSPORT = 3, 2  # Unix sockets, and datagrams


@dataclass(frozen=True, slots=True)
class Header:
    """What a header says.

    Attributes:
        source: the client's address, IPv4 also where it came inside an IPv6 one;
            None if the proxy gives none for TCP, and its own connection counts.
        destination: the address that the client connected to; None with `source`.
        size: bytes of the header; what follows them is the client's.
    """

    source: Address | None
    destination: Address | None
    size: int


def read(data: bytes | bytearray) -> Header | None:
    """Read the header at the beginning of what a connection has sent so far.

    Every call takes the same time, however much `data` is.

    Returns:
        None if more must come: at most 107 bytes of version 1, 65,551 of version 2.

    Raises:
        ValueError: this is the beginning of no header.
    """
    if data[: len(_V1)] == _V1[: len(data)]:
        return _read_v1(bytes(data[:_LONGEST_V1]))
    if data[: len(_V2)] == _V2[: len(data)]:
        return _read_v2(data)
    raise ValueError("no PROXY header")


def write(
    version: Literal["v1", "v2"], source: Address | None, destination: Address | None
) -> bytes:
    """Write the header of a connection.

    Args:
        version: of the protocol.
        source: where it comes from; None for a connection of the sender's own.
        destination: where it was to go; None for the same.

    Returns:
        The header; ``UNKNOWN`` or ``LOCAL`` if either address is None. An IPv4
        address beside an IPv6 one is written inside an IPv6 one, and the scope of
        a link-local one is left out.

    Raises:
        ValueError: a host is not numeric, or a port is none.
    """
    if source is None or destination is None:
        if version == "v1":
            return _V1 + b"UNKNOWN\r\n"
        return _V2 + struct.pack("!BBH", _LOCAL, 0, 0)
    hosts = [_plain(ip_address(host.partition("%")[0])) for host, _ in (source, destination)]
    ports = [port for _, port in (source, destination)]
    if not all(0 <= port <= _MAX_PORT for port in ports):
        raise ValueError(f"a port must be from 0 to {_MAX_PORT}, got {ports}")
    kind = _TCP4
    if any(isinstance(host, IPv6Address) for host in hosts):
        kind = _TCP6
        hosts = [
            IPv6Address(f"::ffff:{each}") if isinstance(each, IPv4Address) else each
            for each in hosts
        ]
    if version == "v1":
        words = ["TCP4" if kind == _TCP4 else "TCP6", *hosts, *ports]
        return _V1 + " ".join(map(str, words)).encode() + b"\r\n"
    addresses = _ADDRESSES[kind]
    fixed = struct.pack("!BBH", _PROXY, kind, addresses.size)
    return _V2 + fixed + addresses.pack(*(host.packed for host in hosts), *ports)


def _read_v1(data: bytes) -> Header | None:
    r"""Read a header of version 1: ``PROXY TCP4 source destination port port\r\n``."""
    line, found, _ = data.partition(b"\n")
    if not found:
        if len(data) < _LONGEST_V1:
            return None
        raise ValueError(f"no end of the PROXY line within {_LONGEST_V1} bytes")
    if not line.endswith(b"\r"):
        raise ValueError("the PROXY line ends without CR")
    size = len(line) + 1
    family, *rest = line[len(_V1) : -1].decode("ascii", "replace").split(" ")
    if family == "UNKNOWN":
        return Header(None, None, size)  # whatever follows that word
    if family not in {"TCP4", "TCP6"} or len(rest) != 4:  # noqa: PLR2004 - two addresses and ports
        raise ValueError("the PROXY line must be TCP4 or TCP6, two addresses and two ports")
    if b"%" in line:
        raise ValueError("an address with a scope in the PROXY line")  # Python would take it
    kind = IPv4Address if family == "TCP4" else IPv6Address
    return _header(kind(rest[0]), kind(rest[1]), [_port(port) for port in rest[2:]], size)


def _read_v2(data: bytes | bytearray) -> Header | None:
    """Read a header of version 2: fixed bytes, both addresses, and more to be skipped."""
    if len(data) > len(_V2) and data[len(_V2)] not in {_LOCAL, _PROXY}:
        raise ValueError("neither LOCAL nor PROXY in version 2 of the PROXY protocol")
    if len(data) < _FIXED:
        return None
    command, kind, length = struct.unpack_from("!BBH", data, len(_V2))
    addresses = _ADDRESSES.get(kind) if command == _PROXY else None
    if command == _PROXY and (kind >> 4 > _MAX_FAMILY or kind & 15 > _MAX_TRANSPORT):
        raise ValueError(f"unknown family and transport {kind:#04x} in the PROXY header")
    if addresses is not None and length < addresses.size:
        raise ValueError(f"{length} bytes of addresses in the PROXY header, not {addresses.size}")
    if len(data) < _FIXED + length:
        return None
    if addresses is None:
        return Header(None, None, _FIXED + length)
    source, destination, *ports = addresses.unpack_from(data, _FIXED)
    return _header(ip_address(source), ip_address(destination), ports, _FIXED + length)


def _header(source: _Host, destination: _Host, ports: Sequence[int], size: int) -> Header:
    """Make the header of two addresses."""
    hosts = [str(_plain(host)) for host in (source, destination)]
    return Header((hosts[0], ports[0]), (hosts[1], ports[1]), size)


def _plain(host: _Host) -> _Host:
    """Take an IPv4 address out of the IPv6 one that it may be in."""
    inner = host.ipv4_mapped if isinstance(host, IPv6Address) else None
    return inner or host


def _port(text: str) -> int:
    """Read a port, which Python's own int takes more for than the protocol does."""
    if not _PORT.fullmatch(text) or int(text) > _MAX_PORT:
        raise ValueError(f"no port of a PROXY header: {text!r}")
    return int(text)
