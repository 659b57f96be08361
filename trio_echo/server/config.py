"""What the server is told: one checked, immutable object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trio_echo.errors import ConfigError
from trio_echo.framing import DEFAULT_MAX_LINE, encode_prefix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["ServerConfig", "TLSConfig"]

_MAX_PORT = 65_535

_LEAST_MEMORY = 64 << 20
"""Bytes below which the interpreter leaves nothing for connections: it takes 40 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSConfig:
    """TLS on some of the server's ports.

    Attributes:
        ports: the ports that speak TLS, beside the plain ones; 0 for any free.
        cert: PEM file with the certificate chain of the server.
        key: PEM file with its private key; None if it is in `cert`.
        client_ca: PEM file with the authorities whose client certificates are
            accepted, which makes one mandatory; None asks for none.
    """

    ports: Sequence[int]
    cert: Path
    key: Path | None = None
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        _check_ports("tls_ports", self.ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything the server is told.

    Attributes:
        ports: the plain ports to listen on; 0 for any free one.
        prefix: the name in front of each answer; empty echoes plainly.
        hosts: the addresses to listen on; none means every address, dual stack,
            as does ``::`` without an IPv4 one beside it.
        max_line: the longest line that is answered, in bytes before LF.
        max_connections: how many clients are served at once, more wait in the
            backlog; None for what the limits of descriptors and memory allow.
        max_memory: bytes that the server may use; before they are used up,
            those clients are ended that hold the most. None for the limit of
            the cgroup; the lower of the two holds.
        idle_timeout: seconds without a byte moved, either way, after which a
            connection is ended.
        drain_timeout: seconds that a drain may take before the rest is cut.
        tls: TLS on further ports, or None.
        greeting: whether the server speaks first: the prefix and LF.
        proxy_protocol: whether each connection begins with a PROXY header, which
            names the client; one without it is ended.
        admin_port: port for ``/livez``, ``/readyz`` and ``/metrics``, or None.
        log_lines: whether to log each request and its response.

    Raises:
        ConfigError: a value cannot work.
    """

    ports: Sequence[int] = ()
    prefix: str = ""
    hosts: Sequence[str] = ()
    max_line: int = DEFAULT_MAX_LINE
    max_connections: int | None = None
    max_memory: int | None = None
    idle_timeout: float = 3600.0
    drain_timeout: float = 10.0
    tls: TLSConfig | None = None
    greeting: bool = False
    proxy_protocol: bool = False
    admin_port: int | None = None
    log_lines: bool = False

    def __post_init__(self) -> None:
        _check_ports("ports", self.ports)
        if not self.ports and self.tls is None:
            raise ConfigError("ports", "must name at least one port")
        encode_prefix(self.prefix)
        if self.greeting and not self.prefix:
            raise ConfigError("greeting", "needs a PREFIX to greet with, and that is empty")
        _check_positive("max_line", self.max_line)
        if self.max_connections is not None:
            _check_positive("max_connections", self.max_connections)
        if self.max_memory is not None and self.max_memory < _LEAST_MEMORY:
            least = f"must be at least {_LEAST_MEMORY} bytes (64 MiB), got {self.max_memory}"
            raise ConfigError("max_memory", least)
        _check_positive("idle_timeout", self.idle_timeout)
        if not self.drain_timeout >= 0:
            raise ConfigError("drain_timeout", f"must not be negative, got {self.drain_timeout:g}")
        named = {"ports": self.ports, "tls_ports": self.tls.ports if self.tls else ()}
        if self.admin_port is not None:
            named["admin_port"] = [self.admin_port]
            _check_ports("admin_port", named["admin_port"])
        _check_once(named)


def _check_once(named: Mapping[str, Sequence[int]]) -> None:
    """Refuse a port that is named twice, which would be in use by the server itself."""
    seen = set()
    for field, ports in named.items():
        for port in ports:
            if port in seen:
                raise ConfigError(field, f"port {port} is named twice")
            if port:
                seen.add(port)


def _check_ports(field: str, ports: Sequence[int]) -> None:
    """Refuse a port that no socket can have."""
    for port in ports:
        if not 0 <= port <= _MAX_PORT:
            raise ConfigError(field, f"must be from 0 to {_MAX_PORT}, got {port}")


def _check_positive(field: str, value: float) -> None:
    """Refuse zero, negative values and not-a-number."""
    if not value > 0:
        raise ConfigError(field, f"must be more than 0, got {value:g}")
