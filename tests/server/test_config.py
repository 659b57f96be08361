"""What a server cannot be told, from Python; the command line's words are tested there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_echo.errors import ConfigError
from trio_echo.server.config import ServerConfig, TLSConfig


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("ports", {"ports": []}),
        ("ports", {"ports": [9000, 65_536]}),
        ("ports", {"ports": [-1]}),
        ("prefix", {"prefix": "two\nlines"}),
        ("prefix", {"prefix": "\ud800"}),
        ("max_line", {"max_line": 0}),
        ("max_connections", {"max_connections": 0}),
        ("idle_timeout", {"idle_timeout": 0.0}),
        ("idle_timeout", {"idle_timeout": float("nan")}),
        ("drain_timeout", {"drain_timeout": -1.0}),
        ("drain_timeout", {"drain_timeout": float("nan")}),
        ("admin_port", {"admin_port": 65_536}),
        ("ports", {"ports": [0, 9000, 0, 9000]}),
        ("tls_ports", {"ports": [9000], "tls": TLSConfig(ports=[9000], cert=Path("cert.pem"))}),
        ("admin_port", {"ports": [9000], "admin_port": 9000}),
    ],
)
def test_what_cannot_work_is_refused_by_field(field: str, values: dict[str, Any]) -> None:
    """When the object is made: a server that starts has a configuration that can work."""
    with pytest.raises(ConfigError) as raised:
        ServerConfig(**{"ports": [0]} | values)
    assert raised.value.field == field


def test_tls_ports_are_ports() -> None:
    """They are checked like the plain ones."""
    with pytest.raises(ConfigError) as raised:
        TLSConfig(ports=[65_536], cert=Path("cert.pem"))
    assert raised.value.field == "tls_ports"


def test_tls_ports_may_stand_alone() -> None:
    """A server need not have a plain port."""
    ServerConfig(tls=TLSConfig(ports=[0], cert=Path("cert.pem")))
