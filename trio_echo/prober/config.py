"""What the probe is told: one checked, immutable object."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from trio_echo.errors import ConfigError
from trio_echo.prober.split import DEFAULT_ALPHA, DEFAULT_MARGIN, Split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["DEFAULT_CONNECTIONS", "ProbeConfig", "ProbeTLS", "split_target"]

DEFAULT_CONNECTIONS = 5_000
"""Connections after which the probe gives up, unless told otherwise. Enough to
prove 80/20 to 5 points with 1 in 1000 both ways, which takes 1500 as a rule."""

_CLOSED_LOOP = 16
"""Connections in flight without a rate: enough to keep a proxy busy, few enough
not to be a load test."""

_OPEN_LOOP = 256
"""Connections in flight with a rate. Here it is only a cap: reaching it delays
launches, which is what a rate is meant to avoid."""

_MAX_PAYLOAD = 65_536
"""The longest line that the server answers by default."""

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTLS:
    """TLS towards the target, which is always verified.

    Attributes:
        ca: PEM file with the authorities to trust; None for the system's.
        server_name: the name to ask for (SNI) and to find in the certificate;
            None for the target's host.
        cert: PEM file with the probe's own certificate, for mutual TLS.
        key: PEM file with its private key; None if it is in `cert`.
    """

    ca: Path | None = None
    server_name: str | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.cert is None:
            raise ConfigError("tls_key", "needs --tls-cert, the certificate that it belongs to")
        if self.server_name == "":
            raise ConfigError("sni", "must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """Everything the probe is told.

    Attributes:
        target: ``HOST:PORT``, an IPv6 address in brackets.
        expect: the weight of each backend by its name, in any unit, such as
            ``{"one": 80, "two": 20}``; empty to measure without a verdict.
        connections: how many connections to spend at most; None for 5000, or
            for no bound where a duration is given.
        duration: seconds after which no connection is launched any more.
        concurrency: how many connections are in flight at most; None for 16,
            or 256 with a rate.
        rate: connections to launch per second, whether earlier ones have ended
            or not (open loop); None launches one when one ends (closed loop).
        margin: how far a share may be off and still pass, from 0 to 1.
        alpha: the accepted chance of a wrong PASS, and of a wrong FAIL.
        timeout: seconds for connecting, and again for each answer.
        wait: seconds to wait first until an echo comes back at all.
        max_errors: how many failed connections are accepted; None for 0 where
            something is expected, and for any number otherwise.
        lines: lines to send on each connection, each after the answer to the
            one before.
        half_close: shut the sending side after the last line, and ask for the
            answer and then end of file.
        payload_size: length of each line in bytes before LF; None for as
            short as a unique line can be.
        source_addresses: local addresses to connect from, in turn, of one
            family; each has ports of its own.
        tls: speak TLS, or None.

    Raises:
        ConfigError: a value cannot work.
    """

    target: str
    expect: Mapping[str, float] = field(default_factory=dict)
    connections: int | None = None
    duration: float | None = None
    concurrency: int | None = None
    rate: float | None = None
    margin: float = DEFAULT_MARGIN
    alpha: float = DEFAULT_ALPHA
    timeout: float = 5.0
    wait: float = 0.0
    max_errors: int | None = None
    lines: int = 1
    half_close: bool = False
    payload_size: int | None = None
    source_addresses: Sequence[str] = ()
    tls: ProbeTLS | None = None

    def __post_init__(self) -> None:
        split_target(self.target)
        Split(self.expect, margin=self.margin, alpha=self.alpha)
        for name in ("connections", "duration", "concurrency", "rate", "timeout", "lines"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ConfigError(name, f"must be more than 0, got {value:g}")
        for name in ("wait", "max_errors"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= 0):
                raise ConfigError(name, f"must not be negative, got {value:g}")
        if self.payload_size is not None and not MIN_PAYLOAD <= self.payload_size <= _MAX_PAYLOAD:
            reason = (
                f"must be from {MIN_PAYLOAD}, what makes a line unique, to {_MAX_PAYLOAD}, "
                f"got {self.payload_size}"
            )
            raise ConfigError("payload_size", reason)
        for address in self.source_addresses:
            if _family(address) is socket.AF_UNSPEC:
                raise ConfigError("source_address", f"must be an IP address, got {address!r}")
        if len(set(map(_family, self.source_addresses))) > 1:
            raise ConfigError("source_address", "must be all IPv4 or all IPv6, to reach one target")
        if self.tls is not None and self.half_close:
            raise ConfigError("half_close", "cannot go with TLS, which has no half-close in common")

    @property
    def budget(self) -> int | None:
        """Connections to spend at most; None for as many as the duration holds."""
        if self.connections is None and self.duration is None:
            return DEFAULT_CONNECTIONS
        return self.connections

    @property
    def family(self) -> socket.AddressFamily:
        """The family of address that the target needs: what can be reached from the sources."""
        return _family(self.source_addresses[0]) if self.source_addresses else socket.AF_UNSPEC

    @property
    def in_flight(self) -> int:
        """Connections in flight at most."""
        if self.concurrency is not None:
            return self.concurrency
        return _CLOSED_LOOP if self.rate is None else _OPEN_LOOP

    @property
    def error_limit(self) -> int | None:
        """How many failed connections are accepted; None for any number."""
        if self.max_errors is None and self.expect:
            return 0
        return self.max_errors


MIN_PAYLOAD = 32
"""The shortest line, in bytes: a tag for the run, the connection and the line."""


def split_target(target: str) -> tuple[str, int]:
    """Take ``HOST:PORT`` apart.

    Raises:
        ConfigError: it is not of that form.
    """
    host, colon, port = target.rpartition(":")
    if not colon or not host:
        raise ConfigError("target", f"must be HOST:PORT, such as localhost:9000, got {target!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError("target", f"must have its IPv6 address in brackets, got {target!r}")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        raise ConfigError("target", f"must end in a port from 1 to {_MAX_PORT}, got {target!r}")
    return host, int(port)


def _family(address: str) -> socket.AddressFamily:
    """The family of a numeric address; AF_UNSPEC if it is none."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        return family
    return socket.AF_UNSPEC
