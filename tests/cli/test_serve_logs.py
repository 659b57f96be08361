"""The log of the real command, with clients that try to break it."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from certificates import Certificates
from commands import serve_process

HOSTILE = b'\x1b]0;owned\x07\x1b[2J\x00\xff\xfe\xe2\x80\xae"}{\\n\r\n'


def exchange(port: int, request: bytes) -> bytes:
    """Send a request, end, and receive all there is."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(65_536):
            received += part
    return received


def records(log: list[str]) -> list[dict[str, Any]]:
    """Parse a log of JSON lines."""
    return [json.loads(line) for line in log]


def test_the_console_log_of_a_short_life() -> None:
    """Plain sentences, the first one as documented."""
    with serve_process("0", "one", "--host", "127.0.0.1") as server:
        (port,) = server.ports
        assert exchange(port, b"a\n") == b"one a\n"
        server.signal()
        assert server.end() == 0
    assert server.log[0] == f"listening on 127.0.0.1:{port}, prefix: one\n"
    assert len(server.log) == 2  # it listens, it drains


@pytest.mark.parametrize("level", ["debug", "info"])
def test_every_line_of_a_json_log_parses(level: str) -> None:
    """Whatever was sent, and what was sent can be had back."""
    options = ("--log-format", "json", "--log-level", level, "--log-lines", "--admin-port", "0")
    with serve_process("0", "one", "--host", "127.0.0.1", *options) as server:
        assert exchange(server.ports[0], HOSTILE) == b"one " + HOSTILE
        server.signal()
        assert server.end() == 0
    said = records(server.log)
    first = said[0]
    assert (first["event"], first["prefix"]) == ("listening", "one")
    assert first["address"] == f"127.0.0.1:{server.ports[0]}"
    (response,) = (record for record in said if record["event"] == "response")
    assert response["line"].startswith(r"one \x1b]0;owned\x07\x1b[2J\x00\xff\xfe\u202e")
    events = [record["event"] for record in said]
    assert ("connection opened" in events) is (level == "debug")


def test_a_hostile_payload_is_escaped_on_the_console() -> None:
    """One line stays one line, and no terminal sees an escape."""
    with serve_process("0", "one", "--log-lines") as server:
        exchange(server.ports[0], HOSTILE + b"rest \x1b[31m")
        server.signal()
        assert server.end() == 0
    assert all(line.endswith("\n") and line[:-1].isprintable() for line in server.log)
    requests = [line for line in server.log if " request: " in line]
    assert requests[0].startswith("127.0.0.1:")  # also as a client of a dual-stack socket
    assert requests[0].endswith('"}{\\\\n\\r\n')
    assert requests[1].endswith(" request: rest \\x1b[31m\n")


def test_a_storm_of_bad_clients_is_a_few_lines(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of each kind of warning a few, and how many more there were."""
    certificates = Certificates.issue(tmp_path_factory.mktemp("tls"))
    tls = ("--tls-ports", "0", "--tls-cert", certificates.cert, "--tls-key", certificates.key)
    options = ("--host", "127.0.0.1", "--max-line", "10", "--log-format", "json", *tls)
    with serve_process("0", "one", *options, listeners=2) as server:
        plain, over_tls = server.ports
        for _ in range(100):
            assert b"error: line longer than 10 bytes" in exchange(plain, bytes(11))
            exchange(over_tls, b"not TLS at all\n")
        server.signal()
        assert server.end() == 0
    warnings = [record for record in records(server.log) if record["level"] == "warning"]
    suppressed = {
        record["warning"]: record["count"] for record in warnings if record["event"] == "suppressed"
    }
    logged = [record["event"] for record in warnings if record["event"] != "suppressed"]
    assert len(warnings) < 60  # a window is 10 s, and the storm is over long before a third
    for kind in ("line too long", "no TLS with this client"):
        assert suppressed[kind] + logged.count(kind) == 100
