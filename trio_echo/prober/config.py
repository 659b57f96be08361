"""What the probe is told: one checked, immutable object."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import ceil, isfinite
from typing import TYPE_CHECKING, Literal, get_args

from trio_echo.errors import ConfigError
from trio_echo.prober.dialogue import (
    CERTIFICATE_FIELDS,
    Certificate,
    CertificateField,
    Dialogue,
    Echo,
    Pattern,
    escape,
)
from trio_echo.prober.split import (
    DEFAULT_ALPHA,
    MOST_CONNECTIONS,
    Expectation,
    connections_needed,
)
from trio_echo.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "DEFAULT_CONNECTIONS",
    "ProbeConfig",
    "ProbeTLS",
    "parse_expectation",
    "split_target",
]

DEFAULT_CONNECTIONS = 5_000
"""Connections that a probe without an expectation makes, unless told otherwise:
they tell each share to about two points."""

DEFAULT_LOOK = 60
"""Connections of a second look unless told otherwise: all of them miss a backend of 20 %
once in 600 000 times."""

_CLOSED_LOOP = 16
"""Connections in flight without a rate: enough to keep a proxy busy, few enough
not to be a load test."""

_OPEN_LOOP = 256
"""Connections in flight with a rate. Here it is only a cap: reaching it delays
launches, which is what a rate is meant to avoid."""

_FOR_EACH_ERROR = 4
"""Further connections for each accepted failure, at a margin of the whole: with
these, failures take a quarter of the margin at most."""

_MAX_PAYLOAD = 65_536
"""The longest line that the server answers by default."""

_MAX_SEND = 65_536
"""The longest request: what a server may take before it answers."""

_MAX_PORT = 65_535

ProxyVersion = Literal["v1", "v2"]

_PORTS = {"http": "80", "https": "443"}
"""What a URL without a port means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTLS:
    """TLS towards the target, which is verified.

    Where the certificate names the backend (`ProbeConfig.identify_cert`), it may be
    for any host: what it says is held against what is expected. It still comes from
    a trusted authority, but with ``sha256`` and no `ca`, where the expected
    fingerprint says all.

    Attributes:
        ca: PEM file with the authorities to trust, or with certificates that are
            signed by themselves; None for the system's.
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
        connections: how many connections to spend at most; None for as many as
            a right split needs with a chance of 99.9 %, for 5000 where nothing
            is expected, and for no bound where a duration is given.
        duration: seconds after which no connection is launched any more.
        concurrency: how many connections are in flight at most; None for 16,
            or 256 with a rate.
        rate: connections to launch per second, whether earlier ones have ended
            or not (open loop); None launches one when one ends (closed loop).
        margin: a share that is off by this much or more must not pass, from 0
            to 1; None for 5 points, or half the smallest share if that is less.
        tolerance: a share that is off by this much or less must not fail, from
            0 to the margin.
        alpha: the accepted chance of a wrong PASS, and of a wrong FAIL.
        timeout: seconds for connecting, and again for each answer.
        wait: seconds to wait first until an answer comes back at all.
        max_errors: how many failed connections are accepted; None for 0 where
            something is expected, and for any number otherwise.
        second_look: connections to make at most, after a failure, to find its cause.
            They are not judged; see `trio_echo.prober.look`.
        lines: lines to send on each connection, each after the answer to the
            one before.
        half_close: shut the sending side after the last line, and ask for the
            answer and then end of file.
        payload_size: length of each line in bytes before LF; None for as
            short as a unique line can be.
        source_addresses: local addresses to connect from, in turn, of one
            family; each has ports of its own.
        tls: speak TLS, or None.
        send: what to send to servers other than our echo; None or empty where they
            speak first. Needs `identify`.
        identify: an expression of RE2 over the bytes that come back, whose first
            group is the backend's name; None for our echo. At most 65,536 bytes are
            looked at, whenever a line (by LF), a text (by NUL) or all has ended.
        identify_cert: take the name from this part of the TLS certificate, and send
            nothing: ``cn``, ``san``, ``serial`` or ``sha256``. Implies `tls`.
        proxy_protocol: begin each connection, before TLS too, with a PROXY header of
            this version that gives the connection's own addresses; None for none.

        expectation: the split that all this asks for.

    Raises:
        ConfigError: a value cannot work.
    """

    target: str
    expect: Mapping[str, float] = field(default_factory=dict)
    connections: int | None = None
    duration: float | None = None
    concurrency: int | None = None
    rate: float | None = None
    margin: float | None = None
    tolerance: float = 0.0
    alpha: float = DEFAULT_ALPHA
    timeout: float = 5.0
    wait: float = 0.0
    max_errors: int | None = None
    second_look: int = DEFAULT_LOOK
    lines: int = 1
    half_close: bool = False
    payload_size: int | None = None
    source_addresses: Sequence[str] = ()
    tls: ProbeTLS | None = None
    send: bytes | None = None
    identify: str | None = None
    identify_cert: CertificateField | None = None
    proxy_protocol: ProxyVersion | None = None
    expectation: Expectation = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        split_target(self.target)
        expectation = Expectation(
            self.expect, margin=self.margin, tolerance=self.tolerance, alpha=self.alpha
        )
        object.__setattr__(self, "expectation", expectation)
        for name in ("connections", "duration", "concurrency", "rate", "timeout", "lines"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ConfigError(name, f"must be more than 0, got {value:g}")
        for name in ("wait", "max_errors", "second_look"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value >= 0):
                raise ConfigError(name, f"must not be negative, got {value:g}")
        if self.payload_size is not None and not MIN_PAYLOAD <= self.payload_size <= _MAX_PAYLOAD:
            reason = (
                f"must be from {MIN_PAYLOAD}, what makes a line unique, to {_MAX_PAYLOAD}, "
                f"got {self.payload_size}"
            )
            raise ConfigError("payload_size", reason)
        if len(set(map(_ip_version, self.source_addresses))) > 1:
            raise ConfigError("source_address", "must be all IPv4 or all IPv6, to reach one target")
        if self.identify_cert is not None and self.tls is None:
            object.__setattr__(self, "tls", ProbeTLS())
        self._check_dialogue()
        self.dialogue("")

    def _check_dialogue(self) -> None:
        """Refuse what does not go together.

        Raises:
            ConfigError: names the setting that has no use.
        """
        if self.tls is not None and self.half_close:
            raise ConfigError("half_close", "cannot go with TLS, which has no half-close in common")
        _check_choice("identify_cert", self.identify_cert, CERTIFICATE_FIELDS)
        _check_choice("proxy_protocol", self.proxy_protocol, get_args(ProxyVersion))
        if self.send is not None and self.identify is None:
            raise ConfigError("send", "needs --identify, which finds the name in the answer")
        if self.send is not None and len(self.send) > _MAX_SEND:
            raise ConfigError("send", f"must be {_MAX_SEND} bytes at most, got {len(self.send)}")
        named_by = {"--identify": self.identify, "--identify-cert": self.identify_cert}
        options = [option for option, value in named_by.items() if value is not None]
        if len(options) > 1:
            raise ConfigError("identify_cert", "cannot go with --identify: one of them is the name")
        for name, unused in (("lines", 1), ("half_close", False), ("payload_size", None)):
            if options and getattr(self, name) != unused:
                raise ConfigError(name, f"cannot go with {options[0]}: it is for echo servers")

    def dialogue(self, run: str) -> Dialogue:
        """Make what tells who answered.

        Args:
            run: a tag that no other run has.

        Raises:
            ConfigError: names ``identify``, which is no expression.
        """
        if self.identify_cert is not None:
            return Certificate(self.identify_cert)
        if self.identify is not None:
            return Pattern(self.send or b"", self.identify)
        return Echo(run, self.payload_size)

    @property
    def asked(self) -> dict[str, str]:
        """How a connection is asked for its backend, as options have it; empty for our echo."""
        settings = {
            "send": None if self.send is None else escape(self.send),
            "identify": self.identify,
            "identify_cert": self.identify_cert,
            "proxy_protocol": self.proxy_protocol,
        }
        return {name: value for name, value in settings.items() if value is not None}

    @property
    def budget(self) -> int | None:
        """Connections to spend at most; None for as many as the duration holds."""
        if self.connections is not None or self.duration is not None:
            return self.connections
        if not self.expect:
            return DEFAULT_CONNECTIONS
        needed = connections_needed(self.expectation)
        # Each failed connection widens the intervals; so many more make up for a few.
        more = _FOR_EACH_ERROR * (self.error_limit or 0) / self.expectation.margin
        return min(MOST_CONNECTIONS, needed + ceil(min(needed, more)))

    @property
    def host(self) -> str:
        """The host of the target."""
        return split_target(self.target)[0]

    @property
    def ip_version(self) -> int | None:
        """4 or 6, what can be reached from the sources; None for either."""
        return _ip_version(self.source_addresses[0]) if self.source_addresses else None

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


def parse_expectation(field: str, values: Iterable[str], *, marks: str = "=") -> dict[str, float]:
    """Read ``NAME=WEIGHT`` or several of them separated by commas.

    A name may be empty or contain ``=``, and a comma where what is before it ends
    in no weight: ``a,b=1`` is one backend.

    Args:
        field: what an error names.
        values: one or several each.
        marks: characters that may stand in the place of the ``=``.

    Raises:
        ConfigError: one is of another form, or a name comes twice.
    """
    expect: dict[str, float] = {}
    for value in values:
        parts = value.split(",")
        for pair in parts if None not in [_pair(part, marks) for part in parts] else [value]:
            found = _pair(pair, marks)
            if found is None:
                shown = printable(pair)
                raise ConfigError(field, f"must be NAME=WEIGHT, such as one=80, got '{shown}'")
            name, weight = found
            if name in expect:
                raise ConfigError(field, f"names '{printable(name)}' twice")
            expect[name] = weight
    return expect


def _pair(text: str, marks: str) -> tuple[str, float] | None:
    """The name and the weight in ``NAME=WEIGHT``; None where it has another form."""
    match = re.fullmatch(f"(.*)[{marks}](.*)", text, re.DOTALL)
    try:
        return (match[1], float(match[2].removesuffix("%"))) if match else None
    except ValueError:
        return None


def split_target(target: str) -> tuple[str, int]:
    """Take ``HOST:PORT`` apart.

    Raises:
        ConfigError: it is not of that form.
    """
    got = f"got '{printable(target)}'"
    scheme, is_url, rest = target.partition("://")
    if is_url:
        place = rest.partition("/")[0]
        if place.endswith("]") or ":" not in place:
            place += f":{_PORTS.get(scheme, 'PORT')}"
        raise ConfigError(
            "target", f"must be HOST:PORT without scheme and path: {printable(place)}; {got}"
        )
    host, colon, port = target.rpartition(":")
    if not colon or not host:
        raise ConfigError("target", f"must be HOST:PORT, such as localhost:9000, {got}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError("target", f"must have its IPv6 address in brackets, {got}")
    if "\0" in host:
        raise ConfigError("target", f"must have no NUL in its host, {got}")
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        raise ConfigError("target", f"must end in a port from 1 to {_MAX_PORT}, {got}")
    return host, int(port)


def _check_choice(name: str, value: str | None, allowed: Sequence[str]) -> None:
    """Refuse what is not one of a few words.

    Raises:
        ConfigError: names the setting.
    """
    if value is not None and value not in allowed:
        listed = f"{', '.join(allowed[:-1])} or {allowed[-1]}"
        raise ConfigError(name, f"must be {listed}, got '{printable(str(value))}'")


def _ip_version(address: str) -> int:
    """4 or 6.

    Raises:
        ConfigError: it is no IP address.
    """
    try:
        return ip_address(address).version
    except ValueError:
        reason = f"must be an IP address, got '{printable(address)}'"
        raise ConfigError("source_address", reason) from None
