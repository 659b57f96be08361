"""What the probe is told: every bad value refused by its name, every default reasoned."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_echo.errors import ConfigError
from trio_echo.prober.config import ProbeConfig, ProbeTLS, split_target
from trio_echo.prober.split import Expectation, connections_needed


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("localhost:9000", "localhost", 9000),
        ("127.0.0.1:1", "127.0.0.1", 1),
        ("[::1]:65535", "::1", 65535),
        ("tcp-echo.ns.svc:9000", "tcp-echo.ns.svc", 9000),
    ],
)
def test_targets(target: str, host: str, port: int) -> None:
    """HOST:PORT, IPv6 in brackets."""
    assert split_target(target) == (host, port)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "localhost",
        ":9000",
        "localhost:",
        "a:0",
        "a:65536",
        "a:-1",
        "a:x",
        "::1:9000",
        "a:٣",
        "a\0b:1",
    ],
)
def test_targets_that_are_none(target: str) -> None:
    """Each refused as the target, whatever is wrong with it."""
    with pytest.raises(ConfigError) as refused:
        ProbeConfig(target=target)
    assert refused.value.field == "target"


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("http://localhost:9000/", "localhost:9000"),
        ("tcp://x", "x:PORT"),
        ("https://x/y", "x:443"),
        ("http://[::1]:9/", "[::1]:9"),
        ("http://[::1]/", "[::1]:80"),
    ],
)
def test_a_url_is_told_its_target(url: str, instead: str) -> None:
    """Copied from a browser; the words give what to write."""
    with pytest.raises(ConfigError, match="without scheme and path") as refused:
        ProbeConfig(target=url)
    assert f": {instead}; got '{url}'" in refused.value.reason


@given(target=st.text())
def test_any_target_is_taken_or_refused(target: str) -> None:
    """Never another error."""
    try:
        host, port = split_target(target)
    except ConfigError:
        return
    assert host
    assert 0 < port < 65536


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[
            (field, value)
            for field in ("connections", "duration", "concurrency", "rate", "timeout", "lines")
            for value in (0, -1)
        ],
        ("duration", float("inf")),
        ("timeout", float("nan")),
        ("wait", -1),
        ("wait", float("nan")),
        ("max_errors", -1),
        ("second_look", -1),
        ("margin", 0),
        ("alpha", 1),
        ("expect", {"one": -1}),
        ("payload_size", 31),
        ("payload_size", 65537),
        ("send", b"x"),
        ("identify_cert", "dn"),
        ("proxy_protocol", "v3"),
        ("source_addresses", ["localhost"]),
        ("source_addresses", ["127.0.0.1", "::1"]),
    ],
)
def test_values_that_cannot_work_are_refused(field: str, value: Any) -> None:
    """Each by the name of its option."""
    with pytest.raises(ConfigError) as refused:
        ProbeConfig(target="x:1", **{field: value})
    assert refused.value.field == {"source_addresses": "source_address"}.get(field, field)


def needed(*weights: float) -> int:
    """How many connections a right split of these weights needs."""
    return connections_needed(Expectation(dict(zip("ab", weights, strict=True))))


@pytest.mark.parametrize(
    ("settings", "budget", "in_flight", "limit"),
    [
        ({}, 5000, 16, None),
        ({"expect": {"one": 4, "two": 1}}, needed(4, 1), 16, 0),
        ({"expect": {"one": 4, "two": 1}, "max_errors": 3}, needed(4, 1) + 240, 16, 3),
        ({"expect": {"one": 4, "two": 1}, "max_errors": 5000}, 2 * needed(4, 1), 16, 5000),
        ({"expect": {"one": 1}, "max_errors": 10**12, "margin": 1e-300}, 50_000, 16, 10**12),
        ({"expect": {"one": 1}, "duration": 5}, None, 16, 0),
        ({"expect": {"one": 9999, "two": 1}}, 50_000, 16, 0),
        ({"duration": 5}, None, 16, None),
        ({"duration": 5, "connections": 7}, 7, 16, None),
        ({"rate": 100}, 5000, 256, None),
        ({"rate": 100, "concurrency": 3}, 5000, 3, None),
    ],
)
def test_what_is_not_said(
    settings: dict[str, Any], budget: int | None, in_flight: int, limit: int | None
) -> None:
    """The defaults that depend on other settings."""
    config = ProbeConfig(target="x:1", **settings)
    assert (config.budget, config.in_flight, config.error_limit) == (budget, in_flight, limit)


def test_half_close_and_tls_exclude_each_other() -> None:
    """TLS ends both sides at once."""
    with pytest.raises(ConfigError, match="cannot go with TLS"):
        ProbeConfig(target="x:1", half_close=True, tls=ProbeTLS())


def test_a_request_is_no_longer_than_a_server_takes() -> None:
    """It is sent on every connection."""
    with pytest.raises(ConfigError, match="must be 65536 bytes at most, got 65537") as refused:
        ProbeConfig(target="x:1", send=b"x" * 65_537, identify="(x)")
    assert refused.value.field == "send"


def test_a_certificate_takes_tls() -> None:
    """Asking for the one is asking for the other."""
    assert ProbeConfig(target="x:1", identify_cert="cn").tls == ProbeTLS()
    own = ProbeTLS(server_name="db.test")
    assert ProbeConfig(target="x:1", identify_cert="cn", tls=own).tls is own
